"""How often a canary is wrong, and how many votes it takes, looked at after each of them.

    python -m benchmarks.canary      # two minutes on one core

Visitors come one after another, and each votes several times while others do, some more often than counts. Where both
models are equal a vote is a coin; with tastes, half of the visitors take the one model in 70% of their votes and half
the other. Those who are hostile vote against what they find better, as often as counts. Level and bounds are
conf/canary's. Writes benchmarks/results/canary.json and canary.md.
"""

import argparse
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from benchmarks.inputs import REPOSITORY
from common.files import write_json, write_text
from pipeline.core.composition import compose
from pipeline.core.config import CanarySettings, load
from pipeline.statistics.votes import evidence

RESULTS = REPOSITORY / "benchmarks/results"
CANARY = load(compose(REPOSITORY / "conf")).canary
AT_ONCE = 20  # visitors whose votes come in between each other's


class Crowd(NamedTuple):
    """Who votes, and how."""

    of: str
    wins: float = 0.5  # of votes that are for one of the two, those for the candidate
    neither: float = 0.2  # of votes
    each: float = 2.5  # votes of a visitor, on average
    tastes: float = 0.0  # by how much visitors differ in what they take, to either side
    hostile: float = 0.0  # of visitors


class Found(NamedTuple):
    """What came of a crowd's canaries."""

    of: str
    per_visitor: int
    better: float
    worse: float
    votes: float | None  # the median until it was found better; None where it hardly ever was


CROWDS = (
    Crowd("equal, one vote a visitor", each=1.0),
    Crowd("equal"),
    Crowd("equal, 30 votes a visitor", each=30.0),
    Crowd("equal, a tenth hostile", hostile=0.1),
    Crowd("equal, visitors of unlike tastes", tastes=0.2),
    Crowd("equal, of unlike tastes, 30 votes each", tastes=0.2, each=30.0),
    Crowd("wins 0.55", wins=0.55),
    Crowd("wins 0.6", wins=0.6),
    Crowd("wins 0.65", wins=0.65),
    Crowd("wins 0.65, one vote a visitor", wins=0.65, each=1.0),
    Crowd("wins 0.65, a tenth hostile", wins=0.65, hostile=0.1),
    Crowd("wins 0.35", wins=0.35),
)


def main() -> None:
    """Simulate all crowds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=1000, help="of each crowd")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    random, found = np.random.default_rng(0), []
    for crowd in CROWDS:
        for most in sorted({1, CANARY.per_visitor, 20}):
            found.append(tried(crowd, most, random, arguments.canaries))
            print(line(found[-1]), flush=True)
    result = {"level": CANARY.level, "max_votes": CANARY.max_votes, "canaries": arguments.canaries}
    write_json(arguments.out / "canary.json", result | {"found": [one._asdict() for one in found]})
    write_text(arguments.out / "canary.md", table(found, arguments.canaries))


def tried(crowd: Crowd, most: int, random: Generator, canaries: int) -> Found:
    """Return how often a crowd's votes end in which decision."""
    ended = [first_decision(*drawn(crowd, most, random), most, CANARY) for _ in range(canaries)]
    better = [number for number in ended if number > 0]
    votes = float(np.median(better)) if len(better) >= canaries / 10 else None
    return Found(crowd.of, most, len(better) / canaries, sum(number < 0 for number in ended) / canaries, votes)


def drawn(crowd: Crowd, most: int, random: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the votes of a canary that count, and whose they are, in the order in which they come."""
    visitors = math.ceil(2 * CANARY.max_votes / min(crowd.each, most)) + AT_ONCE
    hostile = random.random(visitors) < crowd.hostile
    counts = np.where(hostile, most, np.minimum(random.geometric(1 / crowd.each, visitors), most))
    voters = np.repeat(np.arange(visitors), counts)
    order = np.argsort(voters + AT_ONCE * random.random(len(voters)), kind="stable")[: CANARY.max_votes]
    voters = voters[order]
    wins = crowd.wins + crowd.tastes * random.choice([1, -1], visitors)
    wins = np.where(hostile, 1 - wins, wins)[voters]
    values = np.where(random.random(len(voters)) < wins, 1.0, -1.0)
    return np.where(random.random(len(voters)) < crowd.neither, 0.0, values), voters


def first_decision(values: np.ndarray, voters: np.ndarray, most: int, settings: CanarySettings) -> int:
    """Return after how many votes the candidate is found better; less than 0 for worse, 0 if neither ever is."""
    goal = math.log(2 / settings.level)
    first = [np.argmax(np.append(evidence(sign * values, voters, most) >= goal, True)) + 1 for sign in (1, -1)]
    if min(first) > len(values):
        return 0
    return int(first[0] if first[0] <= first[1] else -first[1])


def line(found: Found) -> str:
    """Return a row of the table."""
    votes = "" if found.votes is None else f"{found.votes:,.0f}"
    return f"| {found.of} | {found.per_visitor} | {found.better:.1%} | {found.worse:.1%} | {votes} |"


def table(found: list[Found], canaries: int) -> str:
    """Return the result in Markdown."""
    usual = [one for one in found if one.per_visitor == CANARY.per_visitor]
    wrong = max(max(one.better, one.worse) for one in usual if one.of.startswith("equal"))
    return "\n".join(
        [
            "# How far a canary can be trusted\n",
            f"`python -m benchmarks.canary` draws {canaries:,} canaries of each kind, looked at after each of up to",
            f"{CANARY.max_votes:,} votes, at a level of {CANARY.level:.1%}. Of equal models at most {wrong:.1%} were",
            f"found better, or worse, with {CANARY.per_visitor} votes counted of one visitor. A fifth of votes is for",
            "neither; a visitor casts 2.5 on average unless said otherwise.\n",
            "| candidate | counted of a visitor | found better | found worse | median votes until better |",
            "|---|---|---|---|---|",
            *map(line, found),
            "",
        ]
    )


if __name__ == "__main__":
    main()
