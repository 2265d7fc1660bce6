"""Whether one model is better than another on the same rows, no worse, or worse, or whether nobody can tell.

What is said holds at whatever row one stops (pipeline/statistics/sequences.py), at its level.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.statistics.sequences import Bounds, counted_bounds, mean_bounds, t_limits

Finding = Literal["better", "no worse", "worse", "cannot tell"]
Test = Callable[[float], "Paired"]  # at a level
MOST = 1_000_000  # rows that anybody would add to tell
POWER = 0.8416  # standard errors: the 80% quantile of the normal distribution
STEPS = 1000  # of a share: how finely the smallest difference is looked for


@dataclass(frozen=True)
class Paired:
    """A difference between two models on the same rows; positive where the new one is better.

    Attributes:
        figure: loss, accuracy, or a task's name.
        finding: better, where the difference is above zero beyond doubt; no worse, where it is above -margin; worse,
            where it is below zero.
        difference: nats a token, or a share.
        low: the difference's lower bound; high: its upper one. They hold at every number of rows.
        rows: on which both were measured.
        level: how often the bounds may miss the truth.
        margin: by how much the new one may be worse and still be taken for no worse.
        smallest: the difference that this test sees four times in five; infinite where it is above any.
        more: rows that would tell, were the difference what it seems; None where it is told, or none would.
    """

    figure: str
    finding: Finding
    difference: float
    low: float
    high: float
    rows: int
    level: float
    margin: float
    smallest: float
    more: int | None


def paired_loss(
    new: Sequence[float],
    old: Sequence[float],
    weights: Sequence[float],
    level: float,
    margin: float,
    total: int | None = None,
) -> Paired:
    """Return what two models' losses on the same rows say.

    Args:
        new: nats of each row.
        old: the same of the model to compare with.
        weights: tokens of each row.
        level: how often the finding may be wrong.
        margin: nats a token.
        total: rows until which the test would have gone on; those there are, if it is not given.
    """
    falls, tokens = np.asarray(old, dtype=np.float64) - np.asarray(new, dtype=np.float64), np.asarray(weights)
    bounds = mean_bounds(falls, tokens, level)[-1]
    alone = len(falls) == 1  # of which nobody knows how much others vary
    error = float("inf") if alone else float(np.std(falls - bounds.value * tokens, ddof=1) / tokens.mean())

    def at(rows: int) -> Bounds:
        half = error * float(np.sqrt(t_limits(np.array([rows]), level)[0] / rows))
        return Bounds(bounds.value, bounds.value - half, bounds.value + half)

    end = total or len(falls)
    smallest = bounds.value - at(end).low + POWER * error / np.sqrt(end)
    return _found("loss", bounds, at, len(falls), level, margin, float(smallest))


def paired_share(
    new: Sequence[float],
    old: Sequence[float],
    level: float,
    margin: float,
    total: int | None = None,
    figure: str = "accuracy",
) -> Paired:
    """Return what two models' scores of the same questions say.

    Args:
        new: of each question, whether it was right, or a score from 0 to 1.
        old: the same of the model to compare with.
        level: how often the finding may be wrong.
        margin: a share; 0.01 is a point.
        total: questions until which the test would have gone on; those there are, if it is not given.
        figure: what the scores are of.
    """
    rises = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    up, down = np.maximum(rises, 0.0).mean(), np.maximum(-rises, 0.0).mean()

    def at(rows: int) -> Bounds:
        return counted_bounds(np.array([up * rows]), np.array([down * rows]), np.array([rows]), level)[0]

    apart = (len(rises) * (up + down) + 1) / (len(rises) + 2)  # where none differed, some would
    smallest = _smallest_share(float(apart), total or len(rises), level)
    return _found(figure, at(len(rises)), at, len(rises), level, margin, smallest)


def holm(tests: Sequence[Test], level: float) -> list[Paired]:
    """Return the findings of several tests, of which one or more is wrong as often as `level` says (Holm 1979).

    Each is made at an equal part of the level; where some tell, the others share what is left between themselves.
    """
    found: dict[int, Paired] = {}
    while waiting := [index for index in range(len(tests)) if index not in found]:
        tried = {index: tests[index](level / len(waiting)) for index in waiting}
        told = {index: one for index, one in tried.items() if one.finding != "cannot tell"}
        found |= told or tried
    return [found[index] for index in range(len(tests))]


def finding(low: float, high: float, margin: float) -> Finding:
    """Return what a difference's bounds say."""
    if low > 0:
        return "better"
    if low > -margin:
        return "no worse"
    return "worse" if high < 0 else "cannot tell"


def _found(
    figure: str, bounds: Bounds, at: Callable[[int], Bounds], rows: int, level: float, margin: float, smallest: float
) -> Paired:
    said = finding(bounds.low, bounds.high, margin)
    more = _more(at, rows, margin) if said == "cannot tell" else None
    return Paired(figure, said, *bounds, rows, level, margin, smallest, more)


def _more(at: Callable[[int], Bounds], rows: int, margin: float) -> int | None:
    """Return how many more rows would tell, if the difference and how much it varies stay what they are."""

    def tells(more: int) -> bool:
        bounds = at(rows + more)
        return finding(bounds.low, bounds.high, margin) != "cannot tell"

    return bisect_left(range(1, MOST), True, key=tells) + 1 if tells(MOST) else None


def _smallest_share(apart: float, rows: int, level: float) -> float:
    """Return the difference that so many questions show four times in five, where such a share differs at all."""

    def seen(step: int) -> bool:
        true = step / STEPS
        differ = max(apart, true)
        found = true - POWER * float(np.sqrt((differ - true * true) / rows))
        ups, downs = rows * (differ + found) / 2, rows * (differ - found) / 2
        return counted_bounds(np.array([ups]), np.array([downs]), np.array([rows]), level)[0].low > 0

    steps = range(1, STEPS + 1)
    step = bisect_left(steps, True, key=seen)
    return steps[step] / STEPS if step < STEPS else float("inf")
