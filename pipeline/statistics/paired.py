"""Whether one model is better than another on the same rows, no worse, or worse, or whether nobody can tell.

What is said holds at whatever row one stops (pipeline/statistics/sequences.py), at its level. Of pairs of answers all
are measured before anybody looks, so that an exact test does, which takes fewer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from pipeline.statistics.intervals import exact_share
from pipeline.statistics.sequences import Bounds, counted_bounds, mean_bounds, t_range

Finding = Literal["better", "no worse", "worse", "cannot tell"]
Of = Literal["row", "text", "question", "pair"]
Test = Callable[[float], "Paired"]  # at a level
At = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # the bounds that so many rows would give
MOST = 1_000_000  # rows that anybody would add to tell
POWER = 1.2816  # standard errors: nine of ten are above; four of five are promised, and the spread is only estimated
SIZES = np.unique(np.geomspace(1, MOST, 120).astype(int))  # of what more rows are looked for
STEPS = 1000  # of a share: how finely the smallest difference is looked for


@dataclass(frozen=True)
class Paired:
    """A difference between two models on the same rows; positive where the new one is better.

    Attributes:
        figure: loss, accuracy, preferences, or the name of a task or of a set of general texts.
        of: what it is counted on; of rows and texts the difference is a loss.
        finding: better, where the difference is above zero beyond doubt; no worse, where it is above -margin; worse,
            where it is below zero.
        difference: nats a token, or a share.
        low: the difference's lower bound; high: its upper one. They hold at every number of rows.
        rows: on which both were measured.
        level: how often the bounds may miss the truth.
        margin: by how much the new one may be worse and still be taken for no worse.
        smallest: the difference that this test sees four times in five; infinite where it is above any.
        more: rows that would tell, were the difference what it seems; None where it is told, or none would. Of pairs,
            which of the two is better.
        won: pairs in which the new one alone prefers the chosen answer; lost: the old one alone. None of other figures.
    """

    figure: str
    of: Of
    finding: Finding
    difference: float
    low: float
    high: float
    rows: int
    level: float
    margin: float
    smallest: float
    more: int | None
    won: int | None = None
    lost: int | None = None


def paired_loss(
    new: Sequence[float],
    old: Sequence[float],
    weights: Sequence[float],
    level: float,
    margin: float,
    total: int | None = None,
    figure: str = "loss",
    of: Of = "row",
) -> Paired:
    """Return what two models' losses on the same rows say.

    Args:
        new: nats of each row.
        old: the same of the model to compare with.
        weights: tokens of each row.
        level: how often the finding may be wrong.
        margin: nats a token.
        total: rows until which the test would have gone on; those there are, if it is not given.
        figure: what it is called.
        of: what the rows are.
    """
    falls, tokens = np.asarray(old, dtype=np.float64) - np.asarray(new, dtype=np.float64), np.asarray(weights)
    bounds = mean_bounds(falls, tokens, level)[-1]
    rest = falls - bounds.value * tokens
    error = rest.std(ddof=1) / tokens.mean() if len(falls) > 1 else np.inf  # one does not say how much others vary
    skewness, kurtosis = ((rest**power).mean() / rest.std() ** power if rest.std() > 0 else 0.0 for power in (3, 4))

    def at(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reach = t_range(rows, np.full(len(rows), skewness), level)
        with np.errstate(invalid="ignore"):  # rows may be alike to the last digit: infinite bounds stay so
            low, high = np.where(np.isinf(reach), reach, reach * error / np.sqrt(rows))
        return bounds.value + low, bounds.value + high

    end = np.array([total or len(falls)])
    unsure = 1 + np.sqrt(max(kurtosis - 1, 0.0) / (4 * len(falls)))  # a standard error of the spread itself
    smallest = unsure * (bounds.value - at(end)[0] + POWER * error / np.sqrt(end))
    return _found(figure, of, bounds, at, len(falls), level, margin, float(smallest[0]))


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

    def at(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = counted_bounds(up * rows, down * rows, rows, level)
        return np.array([one.low for one in found]), np.array([one.high for one in found])

    count = np.array([len(rises)])
    bounds = counted_bounds(up * count, down * count, count, level)[0]
    apart = (len(rises) * (up + down) + 1) / (len(rises) + 2)  # where none differed, some would
    smallest = _smallest_share(float(apart), total or len(rises), level)
    return _found(figure, "question", bounds, at, len(rises), level, margin, smallest)


def paired_choices(
    new: Sequence[bool], old: Sequence[bool], level: float, margin: float, figure: str = "preferences"
) -> Paired:
    """Return what two models' choices in the same pairs of answers say, by McNemar's exact test (McNemar 1947).

    Only pairs that one of the two alone has right tell; were none better, each would be either's by a coin. The bounds
    lie on one side of zero where the test tells at this level: they are Clopper and Pearson's of the share won of such
    pairs, each times that bound of the share of such pairs which leaves more room.

    Args:
        new: of each pair, whether the chosen answer is the likelier one.
        old: the same of the model to compare with.
        level: how often the finding may be wrong.
        margin: a share; 0.01 is a point.
        figure: what it is called.
    """
    won = sum(one and not other for one, other in zip(new, old, strict=True))
    lost = sum(other and not one for one, other in zip(new, old, strict=True))
    rows, differ = len(new), won + lost
    share, apart = exact_share(won, differ, level), exact_share(differ, rows, level)
    low = min((2 * share.low - 1) * part for part in apart[1:])
    high = max((2 * share.high - 1) * part for part in apart[1:])
    said = finding(low, high, margin)
    apart_at_all = (differ + 1) / (rows + 2)  # where none differed, some would
    return Paired(
        figure=figure,
        of="pair",
        finding=said,
        difference=(won - lost) / rows,
        low=low,
        high=high,
        rows=rows,
        level=level,
        margin=margin,
        smallest=_smallest_choice(apart_at_all, rows, level),
        more=None if said in ("better", "worse") else _more_pairs(abs(won - lost) / rows, differ / rows, rows, level),
        won=won,
        lost=lost,
    )


def holm(tests: Sequence[Test], level: float) -> list[Paired]:
    """Return the findings of several tests, of which one or more is wrong as often as `level` says (Holm 1979).

    Each is made at an equal part of the level; where some are better or worse, the others share what is left between
    themselves. One that is no worse keeps its part: whether it is better is open still.
    """
    found: dict[int, Paired] = {}
    while waiting := [index for index in range(len(tests)) if index not in found]:
        tried = {index: tests[index](level / len(waiting)) for index in waiting}
        settled = {index: one for index, one in tried.items() if one.finding in ("better", "worse")}
        found |= settled or tried
    return [found[index] for index in range(len(tests))]


def finding(low: float, high: float, margin: float) -> Finding:
    """Return what a difference's bounds say."""
    if low > 0:
        return "better"
    if low > -margin:
        return "no worse"
    return "worse" if high < 0 else "cannot tell"


def _found(
    figure: str, of: Of, bounds: Bounds, at: At, rows: int, level: float, margin: float, smallest: float
) -> Paired:
    said = finding(bounds.low, bounds.high, margin)
    more = _more(at, rows, margin) if said == "cannot tell" else None
    return Paired(figure, of, said, *bounds, rows, level, margin, smallest, more)


def _more(at: At, rows: int, margin: float) -> int | None:
    """Return how many more rows would tell, if the difference and how much it varies stay what they are."""
    low, high = at(rows + SIZES)
    tells = (low > -margin) | (high < 0)
    return int(SIZES[tells.argmax()]) if tells.any() else None


@lru_cache(maxsize=1024)
def _smallest_share(apart: float, rows: int, level: float) -> float:
    """Return the difference that so many questions show four times in five, where such a share differs at all."""
    true = np.arange(1, STEPS + 1) / STEPS
    differ = np.maximum(apart, true)
    found = true - POWER * np.sqrt((differ - true * true) / rows)
    ups, downs = rows * (differ + found) / 2, rows * (differ - found) / 2
    low = np.array([one.low for one in counted_bounds(ups, downs, np.full(STEPS, rows), level)])
    seen = (low > 0) & (found > 0)
    return float(true[seen.argmax()]) if seen.any() else float("inf")


def _told_by_choices(apart: np.ndarray, differ: np.ndarray, level: float) -> np.ndarray:
    """Return whether McNemar's test tells, by the normal distribution with its correction, of counts of pairs."""
    return apart - 1 >= NormalDist().inv_cdf(1 - level / 2) * np.sqrt(differ)


def _more_pairs(difference: float, apart: float, rows: int, level: float) -> int | None:
    """Return how many more pairs would tell which is better, where of all so many more are won than lost, or differ."""
    sizes = rows + SIZES
    tells = _told_by_choices(difference * sizes, apart * sizes, level)
    return int(SIZES[tells.argmax()]) if tells.any() else None


def _smallest_choice(apart: float, rows: int, level: float) -> float:
    """Return the difference that so many pairs show four times in five, where such a share differs at all."""
    true = np.arange(1, STEPS + 1) / STEPS
    differ = np.maximum(apart, true)
    found = true - POWER * np.sqrt((differ - true * true) / rows)
    seen = _told_by_choices(rows * found, rows * differ, level)
    return float(true[seen.argmax()]) if seen.any() else float("inf")
