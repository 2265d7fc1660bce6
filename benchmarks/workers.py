"""What several workers of joblib gain over trainings one after another on the same CPUs.

    python -m benchmarks.workers                  2 workers, 6 trainings of starter-m
    python -m benchmarks.workers --workers 4 --jobs 16

Each way is a grid of the same trainings, timed from command to end: by workers of one thread each, in one process with
one thread, and in one process with all threads. CPU seconds are those of all its processes; the load is that of the
minute before, which on an idle machine is near 0. Prints a table, and writes benchmarks/results/workers.json.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.inputs import REPOSITORY
from benchmarks.pipeline import facts
from benchmarks.shared import inputs
from common.files import write_json
from pipeline.core.records import TrainReport

RESULT = REPOSITORY / "benchmarks/results/workers.json"


class Way(NamedTuple):
    """How the trainings are run, and what that took."""

    what: str
    seconds: float
    cpu_seconds: float
    load: float
    losses: dict[str, float | None]


def main() -> None:
    """Measure all three and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40, help="updates of a job")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rates = Path(name), [f"{1e-4 * (job + 1):.1e}" for job in range(arguments.jobs)]
        overrides = [*inputs("starter-m", folder), f"train.max_steps={arguments.steps}", f"train.lr={','.join(rates)}"]
        joblib = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={arguments.workers}"]
        threads = len(os.sched_getaffinity(0))
        ways = [
            run(folder, f"{arguments.workers} workers, 1 thread each", 1, [*overrides, *joblib]),
            run(folder, "one process, 1 thread", 1, overrides),
            run(folder, f"one process, {threads} threads", threads, overrides),
        ]
    speed_ups = {way.what: round(way.seconds / ways[0].seconds, 3) for way in ways[1:]}
    assert ways[0].losses == ways[1].losses, (ways[0].losses, ways[1].losses)
    measured = [way._asdict() for way in ways]
    write_json(RESULT, {**facts(), **vars(arguments), "measured": measured, "workers_gain": speed_ups})
    print_table(ways, speed_ups)


def run(folder: Path, what: str, threads: int, overrides: list[str]) -> Way:
    """Run the trainings in one way."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        places = [f"hydra.sweep.dir={out}/sweep", f"runtime.checkpoint_root={out}/checkpoints", "runtime.device=cpu"]
        command = [sys.executable, "-m", "pipeline.stages.train", "-m", *overrides, *places, "train.check_export=false"]
        load, cpu, began = os.getloadavg()[0], cpu_seconds(), time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=sys.stderr)
        seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
        reports = {path.parts[-3]: TrainReport.read(path) for path in Path(out).rglob("reports/train.json")}
    losses = {trial: report.validation_loss for trial, report in sorted(reports.items())}
    return Way(what, round(seconds, 1), round(cpu, 1), round(load, 2), losses)


def cpu_seconds() -> float:
    """Return the CPU time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_table(ways: list[Way], gains: dict[str, float]) -> None:
    """Print seconds, and how many times as fast the workers are."""
    table = Table("way", "seconds", "CPU seconds", "load before", "the workers gain", title="trainings of a grid")
    for way in ways:
        gain = f"{gains[way.what]:.2f} x" if way.what in gains else ""
        table.add_row(way.what, f"{way.seconds}", f"{way.cpu_seconds}", f"{way.load}", gain)
    Console().print(table)


if __name__ == "__main__":
    main()
