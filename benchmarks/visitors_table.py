"""What benchmarks.visitors finds, and the table of it: benchmarks/results/loop.json and loop.md."""

from collections.abc import Iterator
from itertools import pairwise
from statistics import fmean
from typing import Self

from pipeline.core.records import Amount, Count, Record, Share
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


class Costs(Record):
    """What steps took."""

    steps: dict[str, Cost]


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


class Turn(Record):
    """What came of a turn."""

    learnt: dict[str, Count]  # pairs by split
    costs: dict[str, Cost]  # by step
    validation_loss: float | None  # of the pairs, and the share of them that is told right
    validation_accuracy: float | None
    preferred: Bound  # share of held-out pairs whose chosen answer is likelier a token
    gate: str  # what is said of the model against the last one
    promoted: bool  # whether that lets it through
    loss: Bound  # nats a token above the first champion's, on the starter's test rows
    right: Bound  # share of the starter's questions above the first champion's
    won: Won


class Hostile(Record):
    """What came of the first turn with hostile visitors."""

    visitors: Count  # who were
    learnt: Count  # pairs
    won: Won


class Chances(Record):
    """How often the gate promotes a model by votes that mean nothing; nothing is trained for it."""

    turns: Count
    pairs: Count  # held out
    differ: Share  # of them, which the two models see differently
    promoted: Share  # of the turns


class Report(Record):
    """benchmarks/results/loop.json."""

    model: str
    visitors: Count  # of a turn
    overrides: tuple[str, ...]
    said: list[Said]  # before each turn
    turns: list[Turn]
    hostile: list[Hostile]
    chances: Chances | None


def table(report: Report) -> str:
    """Return the figures as Markdown."""
    lines = [
        "# What a turn of the loop is worth",
        "",
        f"By `python -m benchmarks.visitors --model {report.model}`: {report.visitors} visitors come for each turn. "
        "They like what is short, say so to the model in words that it was never taught, vote with the noise of "
        "Bradley and Terry, and know an answer's text alone.",
        "",
        *of_turns(report),
        "",
        *of_costs(report),
        "",
        *against_goals(report),
        "",
        *(f"Of turn {number} the gate says: {one.gate}." for number, one in enumerate(report.turns, 1)),
        *unmeasured(report),
    ]
    return "\n".join([*lines, ""])


def of_turns(report: Report) -> Iterator[str]:
    """Yield the table of the turns."""
    yield "| | pairs learnt | held-out pairs told right | blind votes won of the first champion | of equal answers |"
    yield "|---|---|---|---|---|"
    for number, one in enumerate(report.turns, 1):
        yield row(f"turn {number}", one.learnt["train"], percent(one.preferred), one.won)
    for number, draw in enumerate(report.hostile, 1):
        yield row(f"turn 1, {draw.visitors} hostile, draw {number}", draw.learnt, "not measured", draw.won)


def row(name: str, pairs: int, told: str, won: Won) -> str:
    """Return a row of the first table."""
    return f"| {name} | {pairs:,} | {told} | {percent(won.won)} of {won.votes:,} | {won.same:.0%} |"


def of_costs(report: Report) -> Iterator[str]:
    """Yield what each step took."""
    heads = [f"turn {number}: s, CPU s (load)" for number in range(1, len(report.turns) + 1)]
    yield f"| {' | '.join(['step', *heads])} |"
    yield "|---|" + "---|" * len(report.turns)
    for step in report.turns[0].costs if report.turns else ():
        taken = [one.costs[step] for one in report.turns]
        yield f"| {step} | " + " | ".join(in_seconds(one) for one in taken) + " |"
    if report.turns:
        yield "| a turn | " + " | ".join(in_seconds(whole(one)) for one in report.turns) + " |"


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
        yield f"Not measured here: {what}."
    if report.overrides:
        yield f"Settings beside the benchmark's own: {', '.join(report.overrides)}."


def goals(report: Report) -> Iterator[tuple[str, str, bool]]:
    """Yield each goal that was measured."""
    if not report.turns:
        return
    first, *more = report.turns
    won = first.won.won
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
    slowest = max(report.turns, key=lambda one: whole(one).seconds)
    yield f"a turn takes at most {MINUTES} minutes", in_seconds(whole(slowest)), whole(slowest).seconds <= 60 * MINUTES


def whole(turn: Turn) -> Cost:
    """Return what all steps of a turn took."""
    costs = turn.costs.values()
    return Cost(
        seconds=sum(one.seconds for one in costs),
        cpu_seconds=sum(one.cpu_seconds for one in costs),
        load=fmean(one.load for one in costs),
    )


def in_seconds(cost: Cost) -> str:
    """Return a cost as it stands in the table."""
    return f"{cost.seconds:.0f}, {cost.cpu_seconds:.0f} ({cost.load:.1f})"


def percent(bound: Bound) -> str:
    """Return a share with its interval."""
    return f"{bound.value:.1%} ({bound.low:.1%} to {bound.high:.1%})"
