"""The rule by which one GGUF file is recommended: the fastest within the budgets that none is better than beyond doubt.

Whether one is better is found on the rows that both were measured on (pairs.py), by what conf/compare says and every
file was asked: held-out pairs of answers; the share of right answers, tasks and loss; or loss alone. One that is worse
by no more than conf/compare's margin gives way to nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

from pipeline.comparison.pairs import Judgement, Side, judge
from pipeline.core.config import CompareSettings
from pipeline.report.metrics import metric
from pipeline.report.record import FileFigures
from pipeline.report.rows import RowResults

RANKED_BY = {"preference": "preference_accuracy", "accuracy": "accuracy", "loss": "loss"}  # metrics by quality
UNKNOWN = Judgement((), ("what was found of each row is not kept of both",))


@dataclass(frozen=True)
class Candidate:
    """A tuned GGUF file, and what its evaluation measured."""

    run: str
    type: str
    figures: FileFigures
    rows: RowResults | None = None  # what was found of each row; None where that was not kept

    def __str__(self) -> str:
        return f"{self.run} {self.type}"

    @property
    def megabytes(self) -> float:
        """Its size in units of a million bytes."""
        return self.figures.bytes / 1e6

    @property
    def slowness(self) -> float:
        """Its seconds an answer; infinite where none was timed."""
        return -metric("answer_seconds").goodness(self.figures.answer_seconds)

    @property
    def memory(self) -> float:
        """Megabytes that serving it takes; infinite where that was not measured."""
        taken = self.figures.memory_bytes
        return float("inf") if taken is None else taken / 1e6

    @property
    def cost(self) -> tuple[float, int]:
        """What it takes to serve it: seconds, then size."""
        return self.slowness, self.figures.bytes

    @property
    def side(self) -> Side | None:
        """What was found of it row by row, where that is known."""
        return Side(self.rows, self.type) if self.rows and self.type in self.rows.models else None

    def goodness(self, quality: str) -> float:
        """Return its quality as a number that is higher for a better file; unknown is worst."""
        name = RANKED_BY[quality]
        return metric(name).goodness(getattr(self.figures, name))


@dataclass(frozen=True)
class Recommendation:
    """The file that the rule takes, or, where none is within the budgets, the one that comes nearest; and why."""

    best: Candidate
    within: bool  # the budgets
    reason: str

    @property
    def file(self) -> Candidate | None:
        """The one that the rule takes."""
        return self.best if self.within else None

    @property
    def nearest(self) -> Candidate | None:
        """The one that comes nearest, where none is within the budgets."""
        return None if self.within else self.best


class Budget(NamedTuple):
    """What a file takes, and may take at most: as numbers, and in words."""

    taken: float
    most: float
    takes: str
    allows: str


def chosen_quality(files: Sequence[Candidate], settings: CompareSettings) -> str:
    """Return what files are ranked by: conf/compare's quality, or the next that all were asked for, at last loss."""
    for quality in list(RANKED_BY)[list(RANKED_BY).index(settings.quality) :]:
        if all(getattr(file.figures, RANKED_BY[quality]) is not None for file in files):
            return quality
    return "loss"


def excluded(file: Candidate, settings: CompareSettings) -> list[str]:
    """Return the budgets that a file is above, each in words; empty if it is within all."""
    return [f"{one.takes}, above {one.allows}" for one in _budgets(file, settings) if one.taken > one.most]


def recommend(files: Sequence[Candidate], settings: CompareSettings) -> Recommendation:
    """Apply the rule to at least one file."""
    quality = chosen_quality(files, settings)
    allowed = sorted((file for file in files if not excluded(file, settings)), key=lambda file: file.cost)
    if not allowed:
        nearest = min(files, key=lambda file: _excess(file, settings))
        why = " and ".join(excluded(nearest, settings))
        return Recommendation(nearest, False, f"No file is within the budgets. Nearest is {nearest}: {why}.")
    beaten = worse_ones(allowed, settings)
    left = [file for file in allowed if file not in beaten and file.goodness(quality) > float("-inf")]
    best = (left or allowed)[0]
    return Recommendation(best, True, _reason(best, left, allowed, files, quality))


def worse_ones(files: Sequence[Candidate], settings: CompareSettings) -> list[Candidate]:
    """Return the files that another one is better than beyond doubt, and by more than the margin."""
    pairs = list(combinations(files, 2))
    settings = replace(settings, quality=chosen_quality(files, settings), level=settings.level / max(1, len(pairs)))
    beaten = []
    for one, other in pairs:
        for file, against in ((one, other), (other, one)):
            if judged(file, against, settings).finding == "worse":
                beaten.append(file)
    return beaten


def judged(new: Candidate, old: Candidate, settings: CompareSettings) -> Judgement:
    """Return what their rows say of one file against another."""
    if new.side is None or old.side is None:
        return UNKNOWN
    return judge(new.side, old.side, settings)


def front(files: Sequence[Candidate], quality: str) -> list[Candidate]:
    """Return the Pareto front, fastest first.

    No other file is at least as good and as fast as one of these, and not equal.
    """
    fastest = sorted(files, key=lambda file: (file.slowness, -file.goodness(quality)))
    kept: list[Candidate] = []
    for file in fastest:
        equal = bool(kept) and _point(file, quality) == _point(kept[-1], quality)
        if not kept or equal or file.goodness(quality) > kept[-1].goodness(quality):
            kept.append(file)
    return kept


def worth(file: Candidate, quality: str) -> str:
    """Return a file's quality in words."""
    value = getattr(file.figures, RANKED_BY[quality])
    if value is None:
        return f"no finite {quality}"
    return f"loss {value:.5f} nats a token" if quality == "loss" else f"{quality} {value:.2%}"


def _point(file: Candidate, quality: str) -> tuple[float, float]:
    return file.goodness(quality), file.slowness


def _excess(file: Candidate, settings: CompareSettings) -> float:
    """Return by which factor a file is above its worst budget."""
    return max((one.taken / one.most for one in _budgets(file, settings)), default=0.0)


def _budgets(file: Candidate, settings: CompareSettings) -> Iterator[Budget]:
    """Yield those that are set."""
    if (most := settings.max_answer_seconds) is not None:
        yield Budget(file.slowness, most, _seconds(file), f"{most:g} s")
    if (most := settings.max_gguf_mb) is not None:
        yield Budget(file.megabytes, most, f"{file.megabytes:,.1f} MB", f"{most:,g} MB")
    if (most := settings.max_memory_mb) is not None:
        yield Budget(file.memory, most, _memory(file) or "memory not measured", f"{most:,g} MB")


def _reason(
    best: Candidate,
    left: Sequence[Candidate],
    allowed: Sequence[Candidate],
    files: Sequence[Candidate],
    quality: str,
) -> str:
    """Return why `best` is the one, in a sentence."""
    among = "" if len(allowed) == len(files) else f" within the budgets ({len(files)} in all)"
    if len(allowed) == 1:
        place = f"the only file{among}"
    elif len(left) == 1:
        place = f"the only one of {len(allowed)} files{among} that none is better than beyond doubt"
    else:
        others = ", ".join(f"{file}, {worth(file, quality)}" for file in left if file is not best)
        place = f"the fastest of {len(left)} that none of the {len(allowed)} files{among} is better than beyond doubt"
        place += f" (the others: {others})" if others else ""
    takes = ", ".join(filter(None, (_seconds(best), f"{best.megabytes:,.1f} MB", _memory(best))))
    return f"{best}: {worth(best, quality)}, {place}; {takes}."


def _seconds(file: Candidate) -> str:
    return (
        "answers not timed" if file.figures.answer_seconds is None else f"{file.figures.answer_seconds:g} s an answer"
    )


def _memory(file: Candidate) -> str:
    return "" if file.figures.memory_bytes is None else f"{file.memory:,.1f} MB of memory"
