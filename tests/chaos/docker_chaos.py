"""Kills and stops the train stage's container, and restarts its engine, at random moments: nothing is lost by it.

    make chaos-docker                                     20 rounds with seed 1, and a table
    python tests/chaos/docker_chaos.py --only 3           one of them again
    python tests/chaos/docker_chaos.py --no-restarts      where others use the engine, or it is not ours to restart
    DOCKER_HOST=unix:///run/own.sock DOCKER_PIDFILE=/run/own.pid make chaos-docker    with an engine beside theirs

Each round is one of `make chaos` (chaos_round.py) under runtime=docker, held against a training on the host to which
nothing was done: the same adapter to the bit, no more than save_steps lost, and no container left.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from chaos_bench import Bench
from chaos_plan import Plan, draw_docker
from chaos_process import ChaosError, ordinary_signals
from chaos_round import CHECKS
from chaos_rounds import numbers, play_all
from docker_round import SETTINGS, DockerRound, can_restart


def main() -> None:
    """Plays all rounds, prints a line for each and a table of all."""
    options = arguments()
    ordinary_signals()
    if options.restarts and not can_restart():
        sys.exit("chaos: the engine is not this user's to restart; --no-restarts leaves that out")
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-chaos-"))
    try:
        bench = Bench(folder, sys.executable, "trl", [])
    except ChaosError as error:
        sys.exit(f"chaos: {error}")
    bench.settings += [*SETTINGS, f"runtime.docker.image={options.image}"]
    rounds = (
        DockerRound(str(number), plan(options.seed + number, bench.steps, options.restarts), bench)
        for number in numbers(options.rounds, options.only)
    )
    play_all(rounds, CHECKS, f" under runtime=docker, seed {options.seed}", folder)


def plan(seed: int, steps: int, restarts: bool) -> Plan:
    """The plan of a seed; without restarts, the next one that has none."""
    rng = random.Random(seed)
    while True:
        drawn = draw_docker(rng, steps)
        if restarts or all(harm.blow.target != "engine" for harm in drawn.harms):
            return drawn


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="kills the train stage's container at random moments")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round alone")
    parser.add_argument("--image", default="tunesmith-train", help="a train image for this machine")
    parser.add_argument("--no-restarts", dest="restarts", action="store_false", help="leave the engine alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
