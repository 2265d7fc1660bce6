"""Processes that record in MLflow, and what it then has."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.tracking.delivery import Delivery
from pipeline.tracking.journal import Journal

ROOT = Path(__file__).parents[2]
CONFIG = load(compose(ROOT / "conf"))
SECONDS = 60  # that anything is waited for
TRAIN = """
import itertools, sys
from dataclasses import replace
from pathlib import Path
from pipeline.stages.compose import compose
from pipeline.core.config import load
from pipeline.tracking.run import tracked
conf, folder, first, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with tracked(load(compose(conf)), folder, "train") as run:
    for step in range(first, last + 1) if last else itertools.count(first):
        run.metrics({"train.loss": 1 / step}, step)
        print(step, flush=True)
"""


def eventually(condition: Callable[[], Any]) -> Any:
    """What `condition` gives once that is true."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def runs(client: MlflowClient, experiment: str) -> list[Any]:
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else list(client.search_runs([found.experiment_id]))


def steps(client: MlflowClient, run_id: str | None, key: str = "train.loss") -> list[int]:
    return [metric.step for metric in client.get_metric_history(str(run_id), key)]


def training(folder: Path, first: int, last: int, **environment: str) -> subprocess.Popen[str]:
    """Another process that records the steps `first` to `last`, or ever more where that is 0."""
    command = [sys.executable, "-c", TRAIN, str(ROOT / "conf"), str(folder), str(first), str(last)]
    paths = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "DVC_ROOT": os.environ["DVC_ROOT"],
    }
    return subprocess.Popen(
        command, env=os.environ | paths | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def four_first_runs(place: Path, database: str) -> None:
    """Four processes at once on a database without tables: none of them fails, and each has its run."""
    folders = [place / str(number) for number in range(4)]
    begun = [training(folder, 1, 20, DVC_ROOT=str(place), MLFLOW_TRACKING_URI=database) for folder in folders]
    said = [process.communicate()[1] for process in begun]
    assert [process.returncode for process in begun] == [0] * 4
    assert [text for text in said if "out of reach" in text] == []
    settings = replace(CONFIG.tracking, uri=database)
    for folder in folders:  # on a busy machine the end of a process may have been too soon
        late = Delivery(Journal(folder), settings)
        late.start()
        late.close(SECONDS)
    found = runs(MlflowClient(database), "tunesmith")
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    for run in found:
        assert steps(MlflowClient(database), run.info.run_id) == list(range(1, 21))
        assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(place / "mlartifacts")
