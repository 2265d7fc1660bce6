"""The rule by which one GGUF file is recommended: the best quality within the budgets; of equals, the fastest answers.

Quality is the share of right answers where every file has been asked questions and conf/compare says so, else loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.config import CompareSettings
from pipeline.report.metrics import metric
from pipeline.report.record import FileFigures


@dataclass(frozen=True)
class Candidate:
    """A tuned GGUF file, and what its evaluation measured."""

    run: str
    type: str
    figures: FileFigures

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

    def goodness(self, quality: str) -> float:
        """Return its quality as a number that is higher for a better file; unknown is worst."""
        return metric(quality).goodness(getattr(self.figures, quality))


@dataclass(frozen=True)
class Recommendation:
    """The file that the rule takes, or none and the one that comes nearest; each with its reason."""

    file: Candidate | None
    nearest: Candidate | None
    reason: str


def chosen_quality(files: Sequence[Candidate], settings: CompareSettings) -> str:
    """Return `accuracy` or `loss`: what files are ranked by."""
    has_accuracy = all(file.figures.accuracy is not None for file in files)
    return "accuracy" if settings.quality == "accuracy" and has_accuracy else "loss"


def excluded(file: Candidate, settings: CompareSettings) -> list[str]:
    """Return the budgets that a file is above, each in words; empty if it is within all."""
    reasons = []
    if settings.max_answer_seconds is not None and file.slowness > settings.max_answer_seconds:
        reasons.append(f"{_seconds(file)}, above {settings.max_answer_seconds:g} s")
    if settings.max_gguf_mb is not None and file.megabytes > settings.max_gguf_mb:
        reasons.append(f"{file.megabytes:,.1f} MB, above {settings.max_gguf_mb:,g} MB")
    return reasons


def recommend(files: Sequence[Candidate], settings: CompareSettings) -> Recommendation:
    """Apply the rule to at least one file."""
    quality = chosen_quality(files, settings)
    allowed = [file for file in files if not excluded(file, settings)]
    if not allowed:
        nearest = min(files, key=lambda file: _excess(file, settings))
        why = " and ".join(excluded(nearest, settings))
        return Recommendation(None, nearest, f"No file is within the budgets. Nearest is {nearest}: {why}.")
    best = min(allowed, key=lambda file: (-file.goodness(quality), file.slowness, file.figures.bytes))
    return Recommendation(best, None, _reason(best, allowed, files, quality))


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
    value = getattr(file.figures, quality)
    if value is None:
        return f"no finite {quality}"
    return f"accuracy {value:.2%}" if quality == "accuracy" else f"loss {value:.5f} nats a token"


def _point(file: Candidate, quality: str) -> tuple[float, float]:
    return file.goodness(quality), file.slowness


def _excess(file: Candidate, settings: CompareSettings) -> float:
    """Return by which factor a file is above its worst budget."""
    factors = [0.0]
    if settings.max_answer_seconds is not None:
        factors.append(file.slowness / settings.max_answer_seconds)
    if settings.max_gguf_mb is not None:
        factors.append(file.megabytes / settings.max_gguf_mb)
    return max(factors)


def _reason(best: Candidate, allowed: Sequence[Candidate], files: Sequence[Candidate], quality: str) -> str:
    """Return why `best` is the one, in a sentence."""
    among = "" if len(allowed) == len(files) else f" within the budgets, of {len(files)}"
    place = f"the best of {len(allowed)} files{among}" if len(allowed) > 1 else f"the only file{among}"
    others = [file for file in allowed if file != best]
    equals = [file for file in others if file.goodness(quality) == best.goodness(quality)]
    if equals:
        place += f" and the fastest of {len(equals) + 1} equals"
    elif others:
        second = max(others, key=lambda file: file.goodness(quality))
        place += f" (next: {second}, {worth(second, quality)})"
    return f"{best}: {worth(best, quality)}, {place}; {_seconds(best)}, {best.megabytes:,.1f} MB."


def _seconds(file: Candidate) -> str:
    return (
        "answers not timed" if file.figures.answer_seconds is None else f"{file.figures.answer_seconds:g} s an answer"
    )
