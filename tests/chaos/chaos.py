"""Kills the real train stage at random moments and checks that nothing is lost by it.

    make chaos                                                      30 rounds with seed 1, and a table
    python tests/chaos/chaos.py --rounds 5 --seed 7                 others
    python tests/chaos/chaos.py --seed 7 --only 3                   one of them again
    python tests/chaos/chaos.py --engine unsloth --python /path/to/its/python

A round trains starter-s by `dvc repro train` in a repository of its own, harms it (chaos_plan.py), starts it again
until it ends, and compares with a training that nothing was done to (chaos_round.py). A round that fails keeps its
folder. Ends with status 1 if one failed.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from chaos_bench import Bench
from chaos_disk import enter_namespace
from chaos_plan import draw
from chaos_process import ChaosError, ordinary_signals
from chaos_round import CHECKS, TrainRound
from chaos_rounds import numbers, play_all


def main() -> None:
    """Plays all rounds, prints a line for each and a table of all."""
    options = arguments()
    enter_namespace()
    ordinary_signals()
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-chaos-"))
    try:
        bench = Bench(folder, options.python, options.engine, options.settings)
    except ChaosError as error:
        sys.exit(f"chaos: {error}")
    times = ", ".join(f"{moment} {seconds:.2f} s" for moment, seconds in bench.usual.seconds.items())
    print(f"{options.engine}, {bench.steps} updates, a checkpoint every {bench.save_steps}; undisturbed: {times}")
    rounds = (
        TrainRound(str(number), draw(random.Random(options.seed + number), bench.steps), bench)
        for number in numbers(options.rounds, options.only)
    )
    about = {"engine": options.engine, "seed": options.seed, "settings": bench.settings}
    play_all(rounds, CHECKS, f" on {options.engine}, seed {options.seed}", folder, options.out, **about)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="kills the train stage at random moments")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round alone")
    parser.add_argument("--engine", choices=("trl", "unsloth"), default="trl")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs DVC and the stage")
    parser.add_argument("--settings", nargs="*", default=[], help="further overrides, such as train.max_steps=60")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
