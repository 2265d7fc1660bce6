"""A gate as the check that it comes to: its figure with its bounds, and after how many rows they told."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from common.words import counted
from pipeline.core.config import GateSettings
from pipeline.report.gates import Gate
from pipeline.report.record import Check, Step
from pipeline.statistics.sequences import Bounds

STEPS = 40  # of the bounds' course that a check keeps, closer together where rows are few


class Figure(NamedTuple):
    """How the figure of a gate is named, scaled and written."""

    what: str  # with a place for it and its bounds
    must: str
    limit: float
    text: Callable[[float], str]
    digits: int
    scale: Callable[[float], float] = float  # from the difference that the gate is on


def check_of(gate: Gate, settings: GateSettings) -> Check:
    """Return the check of a gate."""
    figure = _figure(gate, settings)
    known = None if gate.lost else _step(gate.rows, gate.last, figure)
    missing = gate.needed - gate.have if gate.passed is None and gate.needed else None
    what = figure.what.format(_in_words(gate, known, figure, settings.level))
    return Check(
        name=gate.name,
        what=f"{what}; it must be {figure.must}; {_by(gate, missing)}",
        figure=known.figure if known else None,
        limit=figure.limit,
        passed=gate.passed,
        missing=missing,
        of=gate.of,
        rows=gate.rows,
        low=known.low if known else None,
        high=known.high if known else None,
        steps=_course(gate.bounds, figure),
    )


def _figure(gate: Gate, settings: GateSettings) -> Figure:
    if gate.kind == "gain":
        what = "from base to tuned the loss falls by {} nats a token"
        return Figure(what, f"above {settings.min_gain:g}", settings.min_gain, "{:.4f}".format, 5)
    if gate.kind == "quantization":
        kind, whole = gate.models
        what = f"the perplexity of {kind} is {{}} above that of {'tuned' if whole == 'tuned' else whole}"
        limit = settings.max_quantization_loss
        return Figure(what, _at_most(limit), limit, "{:.2%}".format, 6, _relative)
    if gate.kind == "flips":
        kind, whole = gate.models
        what = f"{{}} of the questions are right in one alone of {kind} and {whole}"
        return Figure(what, _at_most(gate.limit), gate.limit, "{:.1%}".format, 4)
    if gate.kind == "forgetting":
        what = f"on {gate.name.removeprefix('forgetting ')} the loss of tuned is {{}} nats a token above the base's"
        return Figure(what, f"at most {gate.limit:g}", gate.limit, "{:.4f}".format, 5)
    alone = gate.name == f"task {gate.tasks[0]}"
    few = "" if alone else f" of {len(gate.tasks):,} tasks with fewer than {settings.min_questions:,} questions each"
    what = f"the accuracy{few} is {{}} below the base's"
    return Figure(what, _at_most(settings.max_task_drop), settings.max_task_drop, "{:.1%}".format, 4)


def _at_most(share: float) -> str:
    return f"at most {100 * share:g}%"


def _in_words(gate: Gate, known: Step | None, figure: Figure, level: float) -> str:
    if gate.lost:
        return "nobody knows how much (the loss of a row is no finite number)"
    if not known:
        return "nobody knows how much" if not gate.rows else f"{figure.text(figure.scale(gate.last.value))} (unbounded)"
    confidence = f"{100 * (1 - level):g}% confidence"
    return f"{figure.text(known.figure)} ({figure.text(known.low)} to {figure.text(known.high)} with {confidence})"


def _by(gate: Gate, missing: int | None) -> str:
    """Return by how many rows it was decided, or what to do where it was not."""
    if gate.decided or gate.lost:
        return f"decided by {counted(gate.rows or gate.have, gate.of)}"
    few = f"{counted(gate.rows, gate.of)} cannot tell"
    return f"{few}, and some {missing:,} more would" if missing else few


def _course(bounds: Sequence[Bounds], figure: Figure) -> tuple[Step, ...]:
    """Return the bounds after some of the rows, from the first that has any."""
    first = next((rows for rows, one in enumerate(bounds, start=1) if math.isfinite(one.high - one.low)), None)
    if first is None:
        return ()
    chosen = sorted(set(np.geomspace(first, len(bounds), STEPS).round().astype(int).tolist()))
    steps = (_step(rows, bounds[rows - 1], figure) for rows in chosen)
    return tuple(step for step in steps if step)


def _step(rows: int, bounds: Bounds, figure: Figure) -> Step | None:
    """Return a figure with its bounds as it is shown; None where it has none."""
    values = [figure.scale(value) for value in bounds]
    if not all(map(math.isfinite, values)):
        return None
    value, low, high = (round(value, figure.digits) for value in values)
    return Step(rows=rows, figure=value, low=low, high=high)


def _relative(nats: float) -> float:
    """Return by which share a perplexity is above another, from the difference of their logarithms."""
    return math.expm1(nats) if nats < 700 else math.inf
