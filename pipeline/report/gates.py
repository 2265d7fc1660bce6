"""Gates on differences between two models on the same rows: what decides each, after how many, and how many more would.

The bounds hold after every row at once (pipeline/statistics/sequences.py): so measuring may stop as soon as they tell,
and what is measured beyond that changes no verdict. A task with too few questions to tell by is judged with the others
like it of its group; where all of them are too few, it is shown and not judged. So is a set of too few general texts.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pipeline.core.config import GateSettings
from pipeline.core.gguf_types import OUT_TYPES, whole_of
from pipeline.report.rows import Nats, RowResults, are_right_or_wrong
from pipeline.statistics.sequences import Bounds, first_decided, mean_bounds, share_bounds

Of = Literal["test conversation", "question", "general text"]

STEP = 8  # rows at least before it is looked again, or an eighth: a model is loaded for each look
SHOWN = 20  # rows from which bounds of a loss are shown; they decide from gate.min_rows on
MOST = 1_000_000  # rows that anybody would measure to tell
UNKNOWN = Bounds(math.nan, -math.inf, math.inf)


@dataclass(frozen=True)
class Gate:
    """A difference that must be above a limit, or must not be."""

    kind: Literal["gain", "quantization", "flips", "task", "forgetting"]
    name: str  # of its check
    models: tuple[str, str]  # the first's figures less the second's
    of: Of
    above: bool  # whether the difference must be above the limit, or at most that
    limit: float
    bounds: list[Bounds]  # of the difference, after each row that counts
    have: int  # rows or questions that both models were measured on, whether they count or not
    total: int  # that there are
    first: int = 1  # how many it takes to tell at all: all of them, where fewer would have saved nothing
    tasks: tuple[str, ...] = ()  # whose questions count
    lost: bool = False  # one of the rows has no finite number, and so has the difference

    @cached_property
    def decided(self) -> int | None:
        """The number of rows that count after which it was first known on which side of the limit it is."""
        told = first_decided(self.bounds[self.first - 1 :], self.limit)
        return None if told is None else told + self.first - 1

    @property
    def passed(self) -> bool | None:
        """Whether it is on the right side; None where that cannot be told."""
        if self.lost:
            return False
        return None if self.decided is None else (self.last.low > self.limit) == self.above

    @property
    def rows(self) -> int:
        """How many count until it was decided, or as far as was measured."""
        return self.decided or len(self.bounds)

    @property
    def last(self) -> Bounds:
        """The bounds by which it was decided, or the last ones."""
        return self.bounds[self.rows - 1] if self.rows else UNKNOWN

    @property
    def wanted(self) -> int | None:
        """Rows or questions to measure before it is looked again; None where it is decided, or all are measured."""
        if self.lost or self.decided is not None or self.have >= self.total:
            return None
        return min(self.total, max(self.have + STEP, 9 * self.have // 8, min(self.needed or MOST, 2 * self.have)))

    @property
    def needed(self) -> int | None:
        """Rows or questions that would decide, were the difference what it seems; None where hardly any would.

        The bound towards the limit, which may be the wider one, closes in as the root of their number does.
        """
        value, low, high = self.last
        apart, reach = abs(value - self.limit), value - low if value > self.limit else high - value
        needed = self.have * (reach / apart) ** 2 if apart else math.inf
        return max(math.ceil(needed), self.first) if needed <= MOST else None


def gates(found: RowResults, settings: GateSettings) -> list[Gate]:
    """Return the gates of an evaluation, each as far as its two models were measured on the same rows."""
    return [
        _gain(found, settings),
        *_quantizations(found, settings),
        *_flips(found, settings),
        *_tasks(found, settings),
        *_items(found, settings),
        *_forgetting(found, settings),
    ]


def _gain(found: RowResults, settings: GateSettings) -> Gate:
    return _of_rows("gain", "gain", ("base", "tuned"), True, settings.min_gain, found, settings)


def _quantizations(found: RowResults, settings: GateSettings) -> Iterator[Gate]:
    """Yield each quantized file of the tuned model against an unquantized one, or Transformers' where there is none."""
    limit = math.log1p(settings.max_quantization_loss)  # of perplexity, whose logarithm the loss is
    for models in _quantized(found):
        yield _of_rows("quantization", f"quantization {models[0]}", models, False, limit, found, settings)


def _quantized(found: RowResults) -> Iterator[tuple[str, str]]:
    """Yield each quantized file of the tuned model, and the unquantized one that it is held against."""
    for kind in found.models:
        if kind not in ("base", "tuned", *OUT_TYPES) and not kind.startswith("base-"):
            yield kind, whole_of(kind, found.models)


def _flips(found: RowResults, settings: GateSettings) -> Iterator[Gate]:
    """Yield how many questions, and of each of the harness's tasks, a quantized file or the whole one alone has right.

    Accuracy hides them: as many may be won as are lost (Dutta et al. 2024, Accuracy is Not All You Need).
    """
    if (limit := settings.max_flips) is None:
        return
    for models in _quantized(found):
        for name, pairs, total in _graded(found, *models):
            if total >= settings.min_questions:
                bounds = share_bounds([float(one != other) for one, other in pairs], settings.level)
                bounds = [one._replace(low=max(one.low, 0.0)) for one in bounds]
                yield Gate("flips", f"flips {name}", models, "question", False, limit, bounds, len(pairs), total)


def _graded(found: RowResults, kind: str, whole: str) -> Iterator[tuple[str, list[tuple[float, float]], int]]:
    """Yield questions, and tasks of which each is right or wrong, as two files have them, and how many there are."""
    new, old = found.models[kind], found.models[whole]
    yield kind, list(zip(new.right, old.right, strict=False)), len(found.questions)
    for task, scores in new.items.items():
        before = old.items.get(task, ())
        if len(before) == len(scores) and are_right_or_wrong(scores, before):
            yield f"{task} of {kind}", list(zip(scores, before, strict=True)), len(scores)


def _of_rows(
    kind: Literal["gain", "quantization"],
    name: str,
    models: tuple[str, str],
    above: bool,
    limit: float,
    found: RowResults,
    settings: GateSettings,
) -> Gate:
    nats = [found.models[model].nats for model in models]
    bounds, have, lost = _compared(nats, found.tokens, settings)
    total, least = len(found.rows), settings.min_rows
    return Gate(kind, name, models, "test conversation", above, limit, bounds, have, total, least, lost=lost)


def _compared(nats: Sequence[Nats], tokens: Sequence[int], settings: GateSettings) -> tuple[list[Bounds], int, bool]:
    """Return the bounds of the first model's loss less the second's, of how many rows, and whether one is no number."""
    pairs = list(zip(*nats, strict=False))  # as far as both go
    finite = [(one, other) for one, other in pairs if one is not None and other is not None]
    lost = len(finite) < len(pairs)
    differences = [] if lost else [one - other for one, other in finite]
    first = min(SHOWN, settings.min_rows)
    return mean_bounds(differences, tokens[: len(differences)], settings.level, first), len(pairs), lost


def _forgetting(found: RowResults, settings: GateSettings) -> Iterator[Gate]:
    """Yield each set of general texts that is large enough to tell by, where forgetting is judged."""
    if (limit := settings.max_forgetting) is None:
        return
    base, tuned, least = found.models["base"].general, found.models["tuned"].general, settings.min_rows
    for name, tokens in found.general.items():
        if len(tokens) < least:
            continue
        bounds, have, lost = _compared([tuned[name], base[name]], tokens, settings)
        yield Gate(
            kind="forgetting",
            name=f"forgetting {name}",
            models=("tuned", "base"),
            of="general text",
            above=False,
            limit=limit,
            bounds=bounds,
            have=have,
            total=len(tokens),
            first=have,
            lost=lost,
        )


def _tasks(found: RowResults, settings: GateSettings) -> Iterator[Gate]:
    """Yield questions by task, those of small tasks by group."""
    base, tuned = found.models["base"].right, found.models["tuned"].right
    drops = [float(before) - float(after) for before, after in zip(base, tuned, strict=False)]
    names = [f"{group}/{task}" for group, task in zip(found.groups, found.tasks, strict=True)]
    models, limit, total = ("base", "tuned"), settings.max_task_drop, len(found.questions)
    for name, tasks in judged_together(names, settings.min_questions).items():
        counted = [drop for drop, task in zip(drops, names, strict=False) if task in tasks]
        bounds = share_bounds(counted, settings.level)
        yield Gate("task", f"task {name}", models, "question", False, limit, bounds, len(drops), total, tasks=tasks)


def _items(found: RowResults, settings: GateSettings) -> Iterator[Gate]:
    """Yield the harness's tasks of each file, or of the tuned model where it has none, against the base's.

    Each was asked of all its questions, in the task's order, which may be any: so all of them decide together. Scores
    that are no share, or of too few questions, are shown and not judged.
    """
    of_base = [name for name, one in found.models.items() if one.items and name.startswith("base")]
    for name, model in found.models.items():
        for task, after in model.items.items() if of_base and name not in of_base else ():
            before = found.models[of_base[0]].items.get(task, ())
            shares = all(0 <= score <= 1 for score in (*before, *after))
            if shares and settings.min_questions <= len(before) == len(after):
                drops = [one - other for one, other in zip(before, after, strict=True)]
                bounds, count, limit = share_bounds(drops, settings.level), len(drops), settings.max_task_drop
                models, title = (of_base[0], name), f"task {task} of {name}"
                yield Gate(
                    "task", title, models, "question", False, limit, bounds, count, count,
                    first=count, tasks=(f"{task} of {name}",),
                )  # fmt: skip


def judged_together(tasks: Sequence[str], least: int) -> dict[str, tuple[str, ...]]:
    """Return tasks by the name that they are judged under: their own, or their group's where they are small.

    What has fewer than `least` questions even so is not among them.

    Args:
        tasks: GROUP/TASK of each question.
        least: questions that it takes to tell.
    """
    counts = Counter(tasks)
    judged = {task: (task,) for task, count in sorted(counts.items()) if count >= least}
    small: dict[str, list[str]] = defaultdict(list)
    for task in sorted(counts.keys() - judged.keys()):
        small[task.partition("/")[0]].append(task)
    together = {group: tuple(some) for group, some in small.items() if sum(map(counts.__getitem__, some)) >= least}
    return judged | together
