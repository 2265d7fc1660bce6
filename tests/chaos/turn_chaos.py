"""Kills a turn of the loop at random moments and checks that it ends in the same champion.

    make turn-chaos                                        30 kills with seed 1, and a table
    make turn-chaos SEED=7 KILLS=9                         others
    make turn-chaos SEED=7 CHAOS_ARGS="--only 3"           one round again

A round kills a turn on starter-s three times, each some time after its start, lets somebody say something meanwhile,
and then lets it end. A round that fails keeps its folder. Ends with status 1 if one failed.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGKILL

from chaos_process import ChaosError, ordinary_signals
from chaos_rounds import Round, numbers, play_all
from said import keep, thumb
from turn_bench import TurnBench, TurnStart

KILLS = 3  # of a round
CHECKS = {
    "champion": "it is the undisturbed turn's file, trained on from the same adapter",
    "records": "those learnt are the undisturbed turn's, and what was said meanwhile waits for the next",
    "orphans": "nothing outlives the turn",
    "status": "it ends well, and leaves no copy of what visitors said",
}


class TurnRound(Round):
    """One round in progress."""

    def __init__(self, name: str, kills: Sequence[tuple[float, str]], bench: TurnBench) -> None:
        """Each of the kills is a share of the time that a turn takes, and whom it hits: `turn` or `all`."""
        plan = "; ".join(f"SIGKILL to {target} at {share:.0%}" for share, target in kills)
        super().__init__(name, plan, bench.folder)
        self.kills, self.bench = kills, bench
        self.said = 0

    def set_up(self, stack: ExitStack) -> None:
        """The repository as it was before the turn, at the one place that its registry knows."""
        self.bench.restore()
        stack.callback(self.keep_if_wrong)

    def keep_if_wrong(self) -> None:
        """Puts the repository of a round that failed aside."""
        if self.result.wrong:
            self.bench.repository.rename(self.folder / "repository")

    def harm_until_done(self) -> None:
        """A start for each kill, somebody who says something after it, and one start that nothing is done to."""
        for share, target in self.kills:
            if not self.ended():
                self.start(share * self.bench.seconds, target)
                self.say(f"after {self.result.starts}")
        if not self.ended():
            self.start()

    def start(self, seconds: float | None = None, target: str = "all") -> None:
        """Starts the turn, and kills it after so many seconds, or waits for its end."""
        with TurnStart(self.bench.repository, self.next_log(), self.bench.environment) as start:
            until = time.monotonic() + (seconds or 0)
            while seconds is not None and start.alive() and time.monotonic() < until:
                time.sleep(0.01)
            struck = seconds is not None and start.strike(target, (SIGKILL,), 0)
            if (status := start.end()) and not struck:
                self.blame("status", f"start {self.result.starts} ended with {status} though nothing was done to it")
            if seconds is not None and not struck:
                self.result.notes.append("ended first")
            if left := start.orphans():
                self.blame("orphans", f"processes {left} live on")

    def ended(self) -> bool:
        """Whether the turn has: another start would be the next one's, which learns what was said meanwhile."""
        place = self.bench.repository
        return (place / "reports/turn.json").is_file() and not (place / "data/turn/turn.json").is_file()

    def say(self, what: str) -> None:
        """Let a visitor say something, which is the next turn's."""
        self.said += 1
        keep(self.bench.repository / "feedback", thumb("late", f"Was it good {what}?", "Yes."))

    def compare(self) -> None:
        """What the turn has left."""
        found, usual = self.bench.outcome(), self.bench.usual
        if (found.champion, found.start, found.promoted) != (usual.champion, usual.start, True):
            self.blame("champion", f"{found.champion} from {found.start}, instead of {usual.champion}, {usual.start}")
        if (found.rows, found.records) != (usual.rows, usual.records):
            self.blame(
                "records", f"{len(found.records)} were learnt, {len(found.records ^ usual.records)} not the same"
            )
        if not usual.kept.items() <= found.kept.items() or len(found.kept) != len(usual.kept) + self.said:
            self.blame("records", "the server's folder is not as it was, with what was said meanwhile")
        if left := [*self.bench.repository.glob("data/turn/records")]:
            self.blame("status", f"it leaves {left}")


def draw(rng: random.Random) -> list[tuple[float, str]]:
    """The kills of a round."""
    return [(rng.random(), rng.choice(("turn", "all"))) for _ in range(KILLS)]


def main() -> None:
    """Plays all rounds, prints a line for each and a table of all."""
    options = arguments()
    ordinary_signals()
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-turn-chaos-"))
    try:
        bench = TurnBench(folder)
    except ChaosError as error:
        sys.exit(f"turn-chaos: {error}")
    print(f"a turn on starter-s, undisturbed: {bench.seconds:.0f} s, {len(bench.usual.records)} records", flush=True)
    rounds = (
        TurnRound(str(number), draw(random.Random(options.seed + number)), bench)
        for number in numbers(-(-options.kills // KILLS), options.only)
    )
    play_all(rounds, CHECKS, f" of turns, seed {options.seed}", folder)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="kills a turn of the loop at random moments")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="ROUND", help="this round alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
