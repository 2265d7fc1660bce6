"""Kills sweeps at random moments and checks that nothing is lost by it.

    make chaos-sweep                                                30 rounds with seed 1, and a table
    python tests/chaos/sweep_chaos.py --rounds 5 --seed 7           others
    python tests/chaos/sweep_chaos.py --seed 7 --only 3             one of them again
    python tests/chaos/sweep_chaos.py --launchers joblib            these launchers alone

A round searches by successive halving on starter-s in a repository of its own, harms the sweep, its workers, its disk
or its MLflow (sweep_plan.py), starts it again by the same command until it ends, and compares with a sweep that nothing
was done to (sweep_round.py). A round that fails keeps its folder. Ends with status 1 if one failed.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from chaos_disk import enter_namespace
from chaos_process import ChaosError, ordinary_signals
from chaos_rounds import numbers, play_all
from sweep_bench import SweepBench
from sweep_plan import LAUNCHERS, draw
from sweep_round import CHECKS, SweepRound


def main() -> None:
    """Play all rounds, print a line for each and a table of all."""
    options = arguments()
    enter_namespace()
    ordinary_signals()
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-chaos-sweep-"))
    bench = SweepBench(folder, options.python)
    launchers = {name: often for name, often in LAUNCHERS.items() if name in options.launchers}
    rounds = (
        SweepRound(str(number), draw(random.Random(options.seed * 1000 + number), launchers), bench)
        for number in numbers(options.rounds, options.only)
    )
    try:
        play_all(rounds, CHECKS, f", seed {options.seed}", folder, options.out, seed=options.seed)
    except ChaosError as error:
        sys.exit(f"chaos: {error}")


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="kills sweeps at random moments")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round alone")
    parser.add_argument("--launchers", nargs="+", choices=[*LAUNCHERS], default=[*LAUNCHERS])
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the sweeps")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the results as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
