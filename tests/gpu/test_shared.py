"""Trainings of one process on a GPU: each gives what it gives alone, in the memory that it takes alone.

`make test-gpu` runs this. Rounding on a GPU follows the order in which it adds up, so that two trainings are alike
within 1e-3 nats.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.stages import train
from pipeline.stages.prepare import prepare
from pipeline.training.session import FITTING
from pipeline.training.shared import TRAININGS, WEIGHTS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
REPO = Path(__file__).parents[2]
STARTER = REPO / "starter/models/starter-m"
DATA = ["data.files=[chats.jsonl]", "data.questions=null", "data.validation=300", "data.test=60", "data.seed=0"]
SETTINGS = [
    *("model=starter-m", f"model.path={STARTER}", *DATA, "tracking=none", "train.check_export=false"),
    *("train.engine=trl", "train.max_steps=40", "train.eval_steps=40", "train.save_steps=40", "train.lr=1e-3"),
]
TRIALS = {
    "plain": [],
    "large": ["train.lora.r=32", "train.batch_size=32", "train.effective_batch=32"],
    "dropout": ["train.lora.dropout=0.1", "train.neftune_alpha=5", "train.scheduler=cosine"],
    "compiled": ["train.compile=true"],
    "fp8": ["train.frozen_dtype=fp8"],
}
NATS = 1e-3
ROUNDED = 8 * 2**20  # bytes by which what a library keeps for itself may grow

Trained = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter's chats, prepared."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "chats.jsonl").write_bytes((REPO / "starter/chats.jsonl").read_bytes())
    prepare(load(compose(REPO / "conf", DATA)).data, folder, folder)
    return folder


@pytest.fixture
def trained(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Trains in this process, each time from the start; returns the report."""
    monkeypatch.chdir(project)
    count = iter(range(100))

    def run(*overrides: str) -> dict[str, Any]:
        out = tmp_path / str(next(count))
        train.run(load(compose(REPO / "conf", [*SETTINGS, f"runtime.checkpoint_root={out}/ck", *overrides])), out)
        return json.loads((out / "reports/train.json").read_text())

    return run


@pytest.fixture(scope="module")
def alone(project: Path) -> dict[str, dict[str, Any]]:
    """The report of each trial in a process of its own."""
    reports = {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))}
    for name in runnable():
        out = project / f"alone-{name}"
        places = [f"hydra.run.dir={out}", f"runtime.checkpoint_root={out}/ck"]
        command = [sys.executable, "-m", "pipeline.stages.train", *SETTINGS, *places, *TRIALS[name]]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr[-2000:]
        reports[name] = json.loads((out / "reports/train.json").read_text())
    return reports


def runnable() -> list[str]:
    return [name for name in TRIALS if name != "fp8" or torch.cuda.get_device_capability() >= (8, 9)]


def in_use() -> int:
    gc.collect()
    return torch.cuda.memory_allocated()


def test_each_gives_what_it_gives_alone_in_the_memory_that_it_takes_alone(
    trained: Trained, alone: dict[str, dict[str, Any]]
) -> None:
    for name in (*runnable(), *reversed(runnable())):
        report, wanted = trained(*TRIALS[name]), alone[name]
        off = abs(report["validation_loss"] - wanted["validation_loss"])
        peaks, starts = ([r[key] for r in (report, wanted)] for key in ("peak_memory_gib", "startup_seconds"))
        print(f"{name}: {off:.1e} nats off; GiB here and alone {peaks}; seconds to the first update {starts}")
        assert off < NATS
        assert peaks[0] == pytest.approx(peaks[1], rel=0.05, abs=0.1)
        assert report["micro_batch"] == wanted["micro_batch"]


def test_what_the_card_holds_is_tried_once_for_trainings_that_differ_in_their_course_alone(trained: Trained) -> None:
    trained()
    found = FITTING.made
    assert found is not None
    trained("train.lr=2e-3", "train.scheduler=cosine")
    assert FITTING.made is found
    trained("train.lora.r=8")
    assert FITTING.made is not found


def test_what_a_training_took_is_free_again_but_for_the_base(trained: Trained) -> None:
    trained()
    assert WEIGHTS.made is not None
    base = sum(weight.nbytes for weight in WEIGHTS.made.model.parameters())
    before = in_use()
    assert before >= base
    trained(*TRIALS["large"])
    with pytest.raises(UserError, match="diverged") as raised:
        trained("train.weight_decay=1e30", "train.warmup_ratio=0", "train.max_grad_norm=1e30")
    assert in_use() - before < ROUNDED
    assert raised.value.__traceback__
    trained("train.method=full", "train.lr=1e-5")
    assert WEIGHTS.made is None


def test_layers_are_compiled_for_the_first_of_like_trainings_alone(trained: Trained) -> None:
    TRAININGS.compile(None)
    counters = torch._dynamo.utils.counters
    counters.clear()
    trained("train.compile=true")
    graphs = counters["stats"]["unique_graphs"]
    assert graphs
    trained("train.compile=true", "train.lr=2e-3", "train.scheduler=cosine")
    assert counters["stats"]["unique_graphs"] == graphs
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for rank in range(2, 12):  # more than PyTorch keeps graphs for
            trained("train.compile=true", f"train.lora.r={rank}", "train.max_steps=2")
