"""Measures how soon a killed sweep of 108 trials trains again: from its command to the first update.

python tests/chaos/sweep_resume.py
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos_process import ordinary_signals, tail
from sweep_bench import SETTINGS, SweepBench
from sweep_process import SWEEP, SweepStart, seen

# R5's space; with so few steps that only the number of trials counts.
SPACE = (
    "train.lr=1e-4,3e-4,1e-3,3e-3",
    "train.scheduler=linear,cosine,constant",
    "train.batch_size=1,2,4",
    "train.gradient_accumulation_steps=1,2,4",
    "train.eval_steps=1",
    "hydra.sweeper.min_steps=1",
    "hydra.sweeper.max_steps=8",
)
SECOND = "*/step-2/log.txt"


def main() -> None:
    """Run the sweep to its second rung, kill it, start it again and say how long that takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    ordinary_signals()
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-resume-"))
    bench = SweepBench(folder, options.python)
    repository, log = folder / "repository", folder / "start.log"
    shutil.copytree(bench.template, repository, symlinks=True)
    settings = [each for each in SETTINGS if each.split("=")[0] not in {one.split("=")[0] for one in SPACE}]
    command = ["-m", "pipeline.stages.train", "-m", *settings, *SPACE]
    environment = bench.environment(folder, repository)
    for kill in range(options.kills + 1):
        with SweepStart(repository, command, log, environment) as start:
            before, began = seen(repository).updates, time.monotonic()
            while start.alive() and (seen(repository).updates == before or not second_rung(repository)):
                time.sleep(0.05)
            seconds = time.monotonic() - began
            if not start.alive():
                sys.exit(f"it has ended:\n{tail(log)}")
            start.strike("all", (signal.SIGKILL,), 0)
            start.end()
            start.orphans()
        if kill:
            print(f"trains again after {seconds:.1f} s, with {seen(repository).outcomes} jobs done before", flush=True)
        else:
            print(f"first rung and begin of the second: {seconds:.1f} s", flush=True)
    shutil.rmtree(folder)


def second_rung(repository: Path) -> bool:
    """Return whether a trial is in its second rung."""
    return bool([*(repository / SWEEP).glob(SECOND)])


if __name__ == "__main__":
    main()
