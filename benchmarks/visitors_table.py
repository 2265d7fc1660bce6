"""What benchmarks.visitors finds, and the table of it: benchmarks/results/loop.json and loop.md."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Self

from common.words import counted
from pipeline.core.records import Amount, Count, Record, Share, UnreadableError
from pipeline.statistics.intervals import Interval

WINS = 0.65  # of the blind votes, at least, after one turn
MOST_LOST = 0.01  # nats a token of the starter's test rows
MOST_MOVED = 0.02  # of the votes, by hostile visitors
MOST_BY_CHANCE = 0.01  # of turns with votes that mean nothing that a model is promoted
MINUTES = 10  # that a turn takes
HOSTILE_SHARE = 0.1  # of the visitors
DIGITS = 4


class Bound(Record):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> Self:
        """Return an interval as it is kept."""
        value, low, high = (round(float(bound), DIGITS) for bound in interval)
        return cls(value=value, low=low, high=high)


class Cost(Record):
    """What a step took: the seconds on the clock, those of CPUs, and how many processes wanted one meanwhile."""

    seconds: Amount
    cpu_seconds: Amount
    load: Amount


class Won(Record):
    """Blind votes between a new model and the first champion."""

    votes: Count
    visitors: Count
    won: Bound  # share that the new one won; visitors are drawn with replacement
    same: Share  # of the votes, between answers that are the same: a coin's
    characters: tuple[float, float]  # of an answer: the first champion's, the new model's


class Said(Record):
    """What visitors did before a turn."""

    did: dict[str, Count]
    records: Count  # that the server kept of it
    server: Cost


class Pairs(Record):
    """Held-out pairs of answers by which the gate holds a turn's model against the champion."""

    rows: Count
    won: Count  # that the new model alone tells right
    lost: Count  # that the champion alone does

    @classmethod
    def of(cls, *told: str) -> Self:
        """Return them as the gate tells them."""
        rows, won, lost = (int(count.replace(",", "")) for count in told)
        return cls(rows=rows, won=won, lost=lost)


class Turn(Record):
    """What came of a turn."""

    learnt: dict[str, Count]  # pairs by split
    cost: Cost  # of the whole `tunesmith turn`
    steps: Count | None  # of its training
    validation_accuracy: float | None  # share of the pairs of validation that are told right
    preferred: Bound  # share of held-out pairs whose chosen answer is likelier a token
    pairs: Pairs | None  # none where the gate did not come to them
    gate: str  # what came of it, in the turn's words
    promoted: bool
    loss: Bound  # nats a token above the first champion's, on the starter's test rows
    right: Bound  # share of the starter's questions above the first champion's
    won: Won


class Hostile(Record):
    """What came of the first turn with hostile visitors."""

    visitors: Count  # who were
    learnt: Count  # pairs
    promoted: bool
    won: Won


class Chances(Record):
    """How often the gate promotes a model by votes that mean nothing; nothing is trained for it."""

    turns: Count
    pairs: Count  # held out
    promoted: Share  # of the turns


class Report(Record):
    """What came of the simulation with a model."""

    date: str
    machine: dict[str, str | int]
    packages: dict[str, str]
    model: str
    visitors: Count  # of a turn
    overrides: tuple[str, ...]
    said: list[Said]  # before each turn
    turns: list[Turn]
    hostile: list[Hostile]
    chances: Chances | None


class Loop(Record):
    """benchmarks/results/loop.json."""

    models: dict[str, Report]

    @classmethod
    def kept(cls, path: Path) -> Self:
        """Return what is in a file already; nothing of one that another version wrote."""
        try:
            return cls.read(path) if path.is_file() else cls(models={})
        except UnreadableError:
            return cls(models={})

    def with_report(self, report: Report) -> "Loop":
        """Return the same with a model's report in the place of the one that it had."""
        return Loop(models=self.models | {report.model: report})


def table(loop: Loop) -> str:
    """Return the figures as Markdown."""
    lines = [
        "# What a turn of the loop is worth",
        "",
        "Visitors like what is short, say so to the model in words that it was never taught, vote with the noise of "
        "Bradley and Terry, and know an answer's text alone. Turns are `tunesmith turn`, by conf/experiment/turn.yaml, "
        "and are promoted by its gate.",
    ]
    for report in loop.models.values():
        lines += ["", *of_model(report)]
    return "\n".join([*lines, ""])


def of_model(report: Report) -> Iterator[str]:
    """Yield the section of a model."""
    yield f"## {report.model}"
    yield ""
    command = " ".join(["python -m benchmarks.visitors --model", report.model, *report.overrides])
    yield f"By `{command}`: {report.visitors} visitors come for each turn."
    for part in (of_turns(report), against_goals(report)):
        yield ""
        yield from part
    for number, one in enumerate(report.turns, 1):
        yield ""
        yield f"Turn {number}: {one.gate}."
    yield from unmeasured(report)


def of_turns(report: Report) -> Iterator[str]:
    """Yield the table of the turns."""
    heads = "pairs learnt", "held-out pairs told right", "promoted", "blind votes won of the first champion"
    yield f"| | {' | '.join([*heads, 'of equal answers', 'characters', 's, CPU s (load)'])} |"
    yield "|---|---|---|---|---|---|---|---|"
    for number, one in enumerate(report.turns, 1):
        learnt, told, cost = one.learnt["train"], percent(one.preferred), in_seconds(one.cost)
        yield row(f"turn {number}", learnt, told, one.promoted, one.won, cost)
    for number, draw in enumerate(report.hostile, 1):
        yield row(f"turn 1, {draw.visitors} hostile, draw {number}", draw.learnt, "", draw.promoted, draw.won, "")


def row(name: str, pairs: int, told: str, promoted: bool, won: Won, cost: str) -> str:
    """Return a row of the table of the turns."""
    of_old, of_new = won.characters
    votes = f"{percent(won.won)} of {won.votes:,} | {won.same:.0%} | {of_old:.0f}, {of_new:.0f}"
    return f"| {name} | {pairs:,} | {told} | {'yes' if promoted else 'no'} | {votes} | {cost} |"


def against_goals(report: Report) -> Iterator[str]:
    """Yield what was wanted and what was found."""
    yield "| wanted | found | |"
    yield "|---|---|---|"
    for wanted, found, met in goals(report):
        yield f"| {wanted} | {found} | {'met' if met else 'missed'} |"


def unmeasured(report: Report) -> Iterator[str]:
    """Yield what this run leaves open."""
    left = [
        "more than one turn" if len(report.turns) < 2 else "",
        "hostile visitors" if not report.hostile else "",
    ]
    if what := " and ".join(filter(None, left)):
        yield ""
        yield f"Not measured here: {what}."


def goals(report: Report) -> Iterator[tuple[str, str, bool]]:
    """Yield each goal that was measured."""
    if not report.turns:
        return
    first, *more = report.turns
    won = first.won.won
    promoted = sum(one.promoted for one in report.turns)
    yield "a better model is promoted", f"{promoted} of {counted(len(report.turns), 'turn')}", first.promoted
    wins = won.value >= WINS and won.low > 0.5
    yield f"after a turn {WINS:.0%} of the blind votes, 95% low above half", percent(won), wins
    if more:
        rates = [one.won.won.value for one in report.turns]
        rising = all(before < after for before, after in pairwise(rates))
        yield "more against the first champion with each turn", ", ".join(f"{rate:.1%}" for rate in rates), rising
    most = max((one.loss for one in report.turns), key=lambda one: one.value)
    said = f"{most.value:+.4f} ({most.low:+.4f} to {most.high:+.4f})"
    yield f"the regression set loses at most {MOST_LOST} nats a token", said, most.value <= MOST_LOST
    if report.hostile:
        moved = fmean(one.won.won.value for one in report.hostile) - won.value
        said = f"{100 * moved:+.1f} points, mean of {len(report.hostile)}"
        yield f"{HOSTILE_SHARE:.0%} hostile visitors move that by at most 2 points", said, abs(moved) <= MOST_MOVED
    if report.chances:
        said = f"{report.chances.promoted:.1%} of {report.chances.turns:,} turns"
        yield "votes that mean nothing promote at most 1%", said, report.chances.promoted <= MOST_BY_CHANCE
    slowest = max((one.cost for one in report.turns), key=lambda cost: cost.seconds)
    in_time = slowest.seconds <= 60 * MINUTES
    yield f"a turn takes at most {MINUTES} minutes: s, CPU s (load)", in_seconds(slowest), in_time


def in_seconds(cost: Cost) -> str:
    """Return a cost as it stands in the table."""
    return f"{cost.seconds:.0f}, {cost.cpu_seconds:.0f} ({cost.load:.1f})"


def percent(bound: Bound) -> str:
    """Return a share with its interval."""
    return f"{bound.value:.1%} ({bound.low:.1%} to {bound.high:.1%})"
