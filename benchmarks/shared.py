"""What the trainings of a sweep cost beside training, in one process and in a process each.

    python -m benchmarks.shared                         starter-m, on a CPU or a GPU
    python -m benchmarks.shared --shape 1b --jobs 6     random weights of a real model's shape, for a GPU

Beside training is all from one training's report to the next one's but the seconds that the report says it trained,
with evaluation and checkpoints: Hydra, loading, tokens, adapter, saving, MLflow. The first of a process, which imports
and loads, stands apart. Prints a table, and writes benchmarks/results/shared-SHAPE.json.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.inputs import CHATS, DATA, REPOSITORY, SHAPES, STARTER, llama, make_model, make_rows
from benchmarks.pipeline import facts
from common.files import write_json
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.core.records import TrainReport
from pipeline.stages.prepare import prepare

RESULTS = REPOSITORY / "benchmarks/results"
CONVERSATIONS = 6400  # of a real model's shape
STARTER_DATA = ["data.files=[chats.jsonl]", "data.questions=null", "data.validation=300", "data.test=300"]


class Cost(NamedTuple):
    """Seconds of one training, and beside it."""

    training: float
    beside: float


def main() -> None:
    """Measure both ways and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["starter-m", *SHAPES], default="starter-m")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=15, help="updates of a job; the first rung of the preset r5")
    parser.add_argument("overrides", nargs="*", help="of the trainings, as train.compile=true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [*inputs(arguments.shape, Path(folder)), f"train.max_steps={arguments.steps}", *arguments.overrides]
        rates = [f"{1e-4 * (job + 1):.1e}" for job in range(arguments.jobs)]
        first, *others = in_one_process(Path(folder), overrides, rates)
        alone = [in_one_process(Path(folder), overrides, [rate])[0] for rate in rates[1:]]
    ways = {"first of a process": [first], "next in it": others, "each in its own": alone}
    measured = [{"what": what, **figures(costs)} for what, costs in ways.items()]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    result = {**facts(), "device": device, **vars(arguments), "measured": measured}
    write_json(RESULTS / f"shared-{arguments.shape}.json", result)
    print_table(measured)


def inputs(shape: str, folder: Path) -> list[str]:
    """Make model and prepared chats in a folder; return the overrides that name them."""
    if shape == "starter-m":
        (folder / "chats.jsonl").write_bytes(CHATS.read_bytes())
        prepare(load(compose(REPOSITORY / "conf", STARTER_DATA)).data, folder, folder)
        return ["model=starter-m", f"model.path={STARTER}", *STARTER_DATA]
    make_model(folder / "model", llama(shape))
    make_rows(folder / "rows", CONVERSATIONS)
    for made in (folder / "rows").iterdir():
        made.rename(folder / made.name)
    return ["model=starter-m", f"model.path={folder / 'model'}", *DATA]


def in_one_process(folder: Path, overrides: Sequence[str], rates: Sequence[str]) -> list[Cost]:
    """Return what trainings with these rates cost, as a sweep of them."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        places = [f"hydra.sweep.dir={out}", f"runtime.checkpoint_root={out}/checkpoints", "train.check_export=false"]
        command = [sys.executable, "-m", "pipeline.stages.train", "-m", *overrides, *places]
        began = time.time()
        subprocess.run([*command, f"train.lr={','.join(rates)}"], cwd=folder, check=True, stdout=sys.stderr)
        costs = []
        for path in sorted(Path(out).rglob("reports/train.json"), key=lambda path: path.stat().st_mtime):
            training, ended = TrainReport.read(path).seconds or 0.0, path.stat().st_mtime
            costs.append(Cost(training, ended - began - training))
            began = ended
        return costs


def figures(costs: Sequence[Cost]) -> dict[str, float]:
    """Return the medians, and the share that is beside training."""
    training, beside = (median(seconds) for seconds in zip(*costs, strict=True))
    return {"training": round(training, 2), "beside": round(beside, 2), "share": round(beside / (training + beside), 4)}


def print_table(measured: Sequence[dict[str, object]]) -> None:
    """Print seconds and shares."""
    table = Table("training", "seconds of it", "beside it", "share", title="beside training")
    for row in measured:
        table.add_row(str(row["what"]), f"{row['training']}", f"{row['beside']}", f"{row['share']:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
