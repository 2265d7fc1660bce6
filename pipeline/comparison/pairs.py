"""Two evaluated files on the rows, questions, tasks and pairs of answers that both were measured on: what may be said.

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
from pipeline.statistics.paired import Finding, Of, Paired, Test, holm, paired_choices, paired_loss, paired_share

PREFERENCES = "preferences"
LOSSES: tuple[Of, ...] = ("row", "text")  # what differences in nats are counted on


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
        quality: conf/compare's, which says what *better* is.
    """

    figures: tuple[Paired, ...]
    apart: tuple[str, ...] = ()
    quality: str = "accuracy"

    @property
    def finding(self) -> Finding:
        """All figures together: better in one is better, and worse is worse; nobody can tell where both are found.

        No worse is what no figure speaks against that has rows enough to see a difference of its margin. By preferences
        better is what is so in these, and fails in no other figure; by other qualities these alone make nothing better.
        """
        said = {one.finding for one in self.figures}
        if "worse" in said:
            return "cannot tell" if "better" in said else "worse"
        if any(one.finding == "better" for one in self._deciding):
            return "cannot tell" if self.failing else "better"
        if self.hopeless and all(one.finding == "cannot tell" for one in self._deciding):
            return "cannot tell"
        silent = all(one.finding != "cannot tell" or one.smallest > one.margin for one in self.figures)
        return "no worse" if "no worse" in said and silent else "cannot tell"

    @property
    def _deciding(self) -> list[Paired]:
        """The figures of which one that is better is enough."""
        by_preferences = self.quality == "preference"
        return [one for one in self.figures if (one.figure == PREFERENCES) == by_preferences]

    @property
    def failing(self) -> list[str]:
        """What keeps a file from being better that is so by preferences: figures by name; none of another quality.

        A loss on rows has to be no worse beyond doubt. Of answers, tasks and general texts there are rarely enough for
        that: where they are too few to see a difference of the margin, they must not seem worse by more than it.
        """
        if self.quality != "preference":
            return []
        names = [one.figure for one in self.figures if one.figure != PREFERENCES and not _holds(one)]
        return names if any(one.of == "row" for one in self.figures) else ["loss", *names]

    @property
    def hopeless(self) -> bool:
        """Whether no more rows or questions can make it better: pairs decide, of which all are measured."""
        return self.quality == "preference" and not any(one.finding == "better" for one in self._deciding)

    @property
    def blind(self) -> bool:
        """Whether a figure could be worse unseen: it could not be paired, or has too few rows for any bounds.

        By preferences also where it cannot tell. General texts are no more than there are.
        """
        open_still = [one for one in self.figures if one.finding == "cannot tell" and one.of != "text"]
        return bool(self.apart) or any(self.quality == "preference" or math.isinf(one.low) for one in open_still)

    @property
    def more(self) -> Paired | None:
        """The figure that the fewest more rows would tell; None where it is told, or none would.

        By preferences it is these as long as they are not better.
        """
        if self.finding != "cannot tell" or any(one.finding == "worse" for one in self.figures):
            return None
        wanted = self._deciding if self.hopeless else self.figures
        return min((one for one in wanted if one.more is not None), key=lambda one: one.more or 0, default=None)

    def __str__(self) -> str:
        wanting = f", {in_rows(self.more.of, self.more.more or 0, 'more ')} would" if self.more else ""
        held = f" (held back by {', '.join(self.failing)})" if self.failing and not self.hopeless else ""
        parts = [*(sentence(one) for one in self.figures), *self.apart]
        return f"{self.finding}{held}{wanting}: {'; '.join(parts)}"


def judge(new: Side, old: Side, settings: CompareSettings, level: float | None = None) -> Judgement:
    """Return what the rows of both say of a new file against an old one.

    Args:
        new: the one that may take over.
        old: the one that it is held against.
        settings: `quality` says what counts beside the loss, and what is better; the margins and the level.
        level: another one than that of the settings.
    """
    tests: list[Test] = []
    apart: list[str] = []
    for test in _tests(new, old, settings):
        if isinstance(test, str):
            apart.append(test)
        else:
            tests.append(test)
    return Judgement(tuple(holm(tests, level or settings.level)), tuple(apart), settings.quality)


def sentence(one: Paired) -> str:
    """Return a finding with its figures, in words."""
    difference, low, high = (in_units(one.of, value) for value in (one.difference, one.low, one.high))
    on = on_rows(one.of, one.rows, one.won, one.lost)
    said = f"{one.figure} {one.finding}, {difference} ({low} to {high}) on {on}"
    if math.isinf(one.smallest):
        return f"{said}, too few to see any difference"
    return f"{said}, which could have shown {in_units(one.of, one.smallest)}"


def in_units(of: Of, value: float | None) -> str:
    """Return a difference in nats or in points, with its sign; plus is better."""
    if value is None or not math.isfinite(value):
        return "unknown"
    return f"{value:+.4f} nats a token" if of in LOSSES else f"{100 * value:+.1f} points"


def in_rows(of: Of, count: int, more: str = "") -> str:
    """Return how many rows of a kind there are."""
    return counted(count, f"{more}{of}")


def on_rows(of: Of, count: int, won: int | None, lost: int | None) -> str:
    """Return on how many rows of a kind a figure rests; of pairs, with how many were won and lost."""
    return in_rows(of, count) + ("" if won is None else f" ({won:,} won, {lost:,} lost)")


def shared(new: Sequence[str], old: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of what stands in both lists of digests, in the order of the first."""
    places = {digest: place for place, digest in enumerate(old)}
    return [(place, places[digest]) for place, digest in enumerate(new) if digest in places]


def _tests(new: Side, old: Side, settings: CompareSettings) -> Iterator[Test | str]:
    """Yield each test that is to be made, or why it cannot be."""
    yield _loss(new, old, settings.margin.loss)
    if settings.quality == "preference":
        for name in new.found.general:
            yield _general(name, new, old, settings.margin.loss)
    if settings.quality != "loss":
        if new.rows.questions and old.rows.questions:
            yield _accuracy(new, old, settings.margin.accuracy)
        for task, scores in new.found.items.items():
            yield _task(task, scores, old.found.items.get(task, ()), settings.margin.accuracy)
    if new.rows.pairs or settings.quality == "preference":
        yield _preferences(new, old, settings.margin.accuracy)


def _loss(new: Side, old: Side, margin: float) -> Test | str:
    pairs = shared(new.rows.rows[: len(new.found.nats)], old.rows.rows[: len(old.found.nats)])
    if not pairs:
        return "no test row is common to both"
    tokens = [new.rows.tokens[place] for place, _ in pairs]
    if tokens != [old.rows.tokens[place] for _, place in pairs]:
        return "they split the same rows into different tokens, so that a loss per token is not the same thing"
    ours, theirs = [new.found.nats[one] for one, _ in pairs], [old.found.nats[other] for _, other in pairs]
    if unknown := _unknown(ours, theirs):
        whose, place = unknown
        return f"the loss of the {whose} one on row {pairs[place][0] + 1} is no finite number"
    total = max(len(shared(new.rows.rows, old.rows.rows)), len(pairs))
    return partial(paired_loss, ours, theirs, tokens, margin=margin, total=total)  # type: ignore[arg-type]


def _general(name: str, new: Side, old: Side, margin: float) -> Test | str:
    tokens, ours = new.rows.general[name], new.found.general[name]
    if old.rows.general.get(name) != tokens:
        return f"the general texts {name} are others, or were not read by both"
    theirs = old.found.general[name]
    if None in (*ours, *theirs):
        return f"the loss of one of both on the general texts {name} is no finite number"
    return partial(paired_loss, ours, theirs, tokens, margin=margin, figure=f"general {name}", of="text")  # type: ignore[arg-type]


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


def _preferences(new: Side, old: Side, margin: float) -> Test | str:
    if not new.rows.pairs:
        return "no pairs of answers are held out, which `data.preferences=learn` does"
    pairs = shared(new.rows.pairs, old.rows.pairs)
    if not pairs:
        return "no pair of answers is common to both"
    ours, theirs = [new.found.preferred[one] for one, _ in pairs], [old.found.preferred[other] for _, other in pairs]
    if unknown := _unknown(ours, theirs):
        whose, place = unknown
        return f"how likely the {whose} one finds the answers of pair {pairs[place][0] + 1} is no finite number"
    return partial(paired_choices, ours, theirs, margin=margin)  # type: ignore[arg-type]


def _unknown(ours: Sequence[float | None], theirs: Sequence[float | None]) -> tuple[str, int] | None:
    """Return whose value is not known, and the first place at which one is not; None where all are."""
    for place, values in enumerate(zip(ours, theirs, strict=True)):
        if None in values:
            return "new" if values[0] is None else "old", place
    return None


def _holds(one: Paired) -> bool:
    """Return whether a figure does not keep a file from being better by preferences (`Judgement.failing`)."""
    if one.finding != "cannot tell":
        return one.finding != "worse"
    return one.of != "row" and one.smallest > one.margin and one.difference >= -one.margin
