"""Two evaluated files on the rows, questions and tasks that both were measured on: what may be said of them.

Nothing of it rests on a figure alone. Each is paired row by row, with bounds that hold whenever measuring stopped, and
the level is shared among all of them (pipeline/statistics/paired.py).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.words import counted
from pipeline.core.config import CompareSettings
from pipeline.data.grading import headline_group
from pipeline.report.rows import ModelRows, RowResults
from pipeline.statistics.paired import Finding, Paired, Test, holm, paired_loss, paired_share

FIRST: tuple[Finding, ...] = ("better", "worse")  # which decide, whatever other figures cannot tell


@dataclass(frozen=True)
class Side:
    """One of the two: a file, and what was found of it row by row."""

    rows: RowResults
    key: str  # of the file among rows.models

    @property
    def found(self) -> ModelRows:
        """What was found of this file."""
        return self.rows.models[self.key]


@dataclass(frozen=True)
class Measurable:
    """One of the two that can still be measured, with what its evaluation has kept of it."""

    name: str  # among measurements
    path: Path
    sha256: str
    side: Side | None


@dataclass(frozen=True)
class Judgement:
    """What is said of a new file against an old one, in each figure that both have.

    Attributes:
        figures: those that could be paired.
        apart: what could not be, and why.
    """

    figures: tuple[Paired, ...]
    apart: tuple[str, ...] = ()

    @property
    def finding(self) -> Finding:
        """All figures together: better in one is better, and worse is worse; nobody can tell where both are found.

        No worse is what no figure speaks against that has rows enough to see a difference of its margin.
        """
        said = {one.finding for one in self.figures}
        if {"better", "worse"} <= said:
            return "cannot tell"
        for finding in FIRST:
            if finding in said:
                return finding
        silent = all(one.finding == "no worse" or one.smallest > one.margin for one in self.figures)
        return "no worse" if "no worse" in said and silent else "cannot tell"

    @property
    def blind(self) -> bool:
        """Whether a figure could be worse unseen: it could not be paired, or has too few rows for any bounds."""
        return bool(self.apart) or any(math.isinf(one.low) for one in self.figures)

    @property
    def more(self) -> Paired | None:
        """The figure that the fewest more rows would tell; None where it is told, or none would."""
        waiting = [one for one in self.figures if one.more is not None]
        return min(waiting, key=lambda one: one.more or 0, default=None) if self.finding == "cannot tell" else None

    def __str__(self) -> str:
        wanting = f", {in_rows(self.more.figure, self.more.more or 0, 'more ')} would" if self.more else ""
        parts = [*(sentence(one) for one in self.figures), *self.apart]
        return f"{self.finding}{wanting}: {'; '.join(parts)}"


def judge(new: Side, old: Side, settings: CompareSettings, level: float | None = None) -> Judgement:
    """Return what the rows of both say of a new file against an old one.

    Args:
        new: the one that may take over.
        old: the one that it is held against.
        settings: `quality` says whether answers and tasks count beside the loss; the margins and the level.
        level: another one than that of the settings.
    """
    tests: list[Test] = []
    apart: list[str] = []
    for test in _tests(new, old, settings):
        if isinstance(test, str):
            apart.append(test)
        else:
            tests.append(test)
    return Judgement(tuple(holm(tests, level or settings.level)), tuple(apart))


def sentence(one: Paired) -> str:
    """Return a finding with its figures, in words."""
    difference, low, high = (in_units(one.figure, value) for value in (one.difference, one.low, one.high))
    said = f"{one.figure} {one.finding}, {difference} ({low} to {high}) on {in_rows(one.figure, one.rows)}"
    if math.isinf(one.smallest):
        return f"{said}, too few to see any difference"
    return f"{said}, which could have shown {in_units(one.figure, one.smallest)}"


def in_units(figure: str, value: float | None) -> str:
    """Return a difference in nats or in points, with its sign; plus is better."""
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"{value:+.4f} nats a token" if figure == "loss" else f"{100 * value:+.1f} points"


def in_rows(figure: str, count: int, more: str = "") -> str:
    """Return how many rows of the figure's kind there are."""
    return counted(count, f"{more}{'row' if figure == 'loss' else 'question'}")


def shared(new: Sequence[str], old: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of what stands in both lists of digests, in the order of the first."""
    places = {digest: place for place, digest in enumerate(old)}
    return [(place, places[digest]) for place, digest in enumerate(new) if digest in places]


def _tests(new: Side, old: Side, settings: CompareSettings) -> Iterator[Test | str]:
    """Yield each test that is to be made, or why it cannot be."""
    yield _loss(new, old, settings.margin.loss)
    if settings.quality == "accuracy":
        if new.rows.questions and old.rows.questions:
            yield _accuracy(new, old, settings.margin.accuracy)
        for task, scores in new.found.items.items():
            yield _task(task, scores, old.found.items.get(task, ()), settings.margin.accuracy)


def _loss(new: Side, old: Side, margin: float) -> Test | str:
    pairs = shared(new.rows.rows[: len(new.found.nats)], old.rows.rows[: len(old.found.nats)])
    if not pairs:
        return "no test row is common to both"
    tokens = [new.rows.tokens[place] for place, _ in pairs]
    if tokens != [old.rows.tokens[place] for _, place in pairs]:
        return "they split the same rows into different tokens, so that a loss per token is not the same thing"
    ours, theirs = [new.found.nats[one] for one, _ in pairs], [old.found.nats[other] for _, other in pairs]
    for place, values in enumerate(zip(ours, theirs, strict=True)):
        if None in values:
            whose = "new" if values[0] is None else "old"
            return f"the loss of the {whose} one on row {pairs[place][0] + 1} is no finite number"
    total = max(len(shared(new.rows.rows, old.rows.rows)), len(pairs))
    return partial(paired_loss, ours, theirs, tokens, margin=margin, total=total)  # type: ignore[arg-type]


def _accuracy(new: Side, old: Side, margin: float) -> Test | str:
    group = headline_group(new.rows.groups)
    pairs = shared(new.rows.questions, old.rows.questions)
    asked = [pair for pair in pairs if new.rows.groups[pair[0]] == group]
    answered = [(a, b) for a, b in asked if a < len(new.found.right) and b < len(old.found.right)]
    if not answered:
        return "no question is common to both"
    ours, theirs = [new.found.right[one] for one, _ in answered], [old.found.right[other] for _, other in answered]
    return partial(paired_share, ours, theirs, margin=margin, total=len(asked))


def _task(task: str, new: Sequence[float], old: Sequence[float], margin: float) -> Test | str:
    if not old or len(new) != len(old):
        return f"the task {task} has not the same items in both"
    if not all(0 <= score <= 1 for score in (*new, *old)):
        return f"the scores of the task {task} are not from 0 to 1"
    return partial(paired_share, new, old, margin=margin, figure=task)
