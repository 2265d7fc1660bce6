"""Bounds that hold at every number of rows at once, so that measuring may stop as soon as they tell.

A confidence interval holds at the one number of rows that was settled beforehand; who looks after each row, and stops
when it suits, is wrong far more often than it says. A confidence sequence is wrong no more often than its level however
often one looks: it holds what a bet against the truth cannot have won (Ville 1939).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FIRST = 20  # rows; before, a variance is too little known for the bounds of a mean to hold with skewed rows
TIGHTEST = (
    100  # rows at which the bounds of a mean are closest, beside what they could be: of 5 to 2,000 within a tenth
)
STAKES = np.geomspace(0.01, 0.98, 16)  # shares of what one has that are bet: the rarer the difference, the larger
HALVINGS = 25  # of the range in which a bound lies


class Bounds(NamedTuple):
    """A figure and the bounds between which it lies; infinite where rows are too few for any."""

    value: float
    low: float
    high: float


def mean_bounds(
    totals: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray, level: float, first: int = FIRST
) -> list[Bounds]:
    """Return, after each row, the sum of `totals` over the sum of `weights`, and between what it lies.

    A value m of the ratio is within the bounds while the sequential t-test (Lai 1976; Wang & Ramdas 2025) does not
    reject that `totals - m * weights` has the mean zero: a mixture over effect sizes, which is exact for normal rows of
    any variance, and for others as their number grows. With weights that differ this is Fieller's (1954) set.

    Args:
        totals: of each row, such as nats, or differences of nats.
        weights: of each row, such as tokens; above zero.
        level: how often the truth may be outside, at any row, on either side.
        first: rows before which the bounds are infinite.
    """
    sums, counts = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    rows = np.arange(1, len(sums) + 1)
    mean, weight = np.cumsum(sums) / rows, np.cumsum(counts) / rows
    squared = t_limits(rows, level, first)
    with np.errstate(invalid="ignore", divide="ignore"):
        own, cross, other = (_covariances(*pair, rows) for pair in ((sums, sums), (sums, counts), (counts, counts)))
        a, b, c = (
            rows * weight * weight - squared * other,
            rows * mean * weight - squared * cross,
            rows * mean * mean - squared * own,
        )
        half = np.sqrt(np.maximum(b * b - a * c, 0.0)) / a
        known = np.isfinite(squared) & (a > 0)
        low, high = np.where(known, b / a - half, -np.inf), np.where(known, b / a + half, np.inf)
    return _listed(mean / weight, low, high)


def t_limits(rows: np.ndarray, level: float, first: int = FIRST) -> np.ndarray:
    """Return the largest square of Student's t at each number of rows that does not reject; infinite where all may.

    The bet is the ratio of t's density under effect sizes of a normal distribution to that under none; its variance is
    the one that is best at TIGHTEST rows (Waudby-Smith et al. 2024, section 3.5).
    """
    spread = 2 * np.log(1 / level)
    variance = (spread + np.log(spread + 1)) / TIGHTEST
    wide = 1 + rows * variance
    factor = (np.sqrt(wide) / level) ** (2 / rows)
    with np.errstate(divide="ignore"):
        squared = (rows - 1) * (factor - 1) / (1 - factor / wide)
    return np.where((rows >= first) & (factor < wide), squared, np.inf)


def share_bounds(values: Sequence[float] | np.ndarray, level: float) -> list[Bounds]:
    """Return, after each row, the mean of `values` and between what it lies; exact with any number of rows.

    Args:
        values: within -1 and 1, such as whether the one was right less whether the other was.
        level: how often the truth may be outside, at any row, on either side.
    """
    each = np.asarray(values, dtype=np.float64)
    ups, downs = np.cumsum(np.maximum(each, 0.0)), np.cumsum(np.maximum(-each, 0.0))
    return counted_bounds(ups, downs, np.arange(1, len(each) + 1), level)


def counted_bounds(ups: np.ndarray, downs: np.ndarray, rows: np.ndarray, level: float) -> list[Bounds]:
    """Return the bounds of a mean of so many ones and minus ones among so many rows, the others zero.

    Nothing but these counts is needed: a bet's capital is a product. A value between two of them is counted as a part
    of each, by which capital is only lost, since the logarithm is concave.
    """
    ups, downs, rows = (np.asarray(some, dtype=np.float64) for some in (ups, downs, rows))
    low, high = _lowest(ups, downs, rows, level / 2), -_lowest(downs, ups, rows, level / 2)
    return _listed((ups - downs) / rows, low, high)


def first_decided(bounds: Sequence[Bounds], limit: float) -> int | None:
    """Return the number of rows after which the figure was first known to be above `limit`, or below; None if never."""
    decided = (index for index, (_, low, high) in enumerate(bounds, start=1) if low > limit or high < limit)
    return next(decided, None)


def _covariances(one: np.ndarray, other: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the covariance of the first row, of the first two, and so on."""
    means = np.cumsum(one) * np.cumsum(other) / rows
    return (np.cumsum(one * other) - means) / np.maximum(rows - 1, 1)


def _lowest(ups: np.ndarray, downs: np.ndarray, rows: np.ndarray, level: float) -> np.ndarray:
    """Return the lowest mean against which no bet has won 1 / level (Waudby-Smith & Ramdas 2024, mixed over STAKES)."""
    low, high = np.full(len(rows), -1.0), np.full(len(rows), 1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        won = _capital(middle, ups, downs, rows) >= np.log(1 / level)
        low, high = np.where(won, middle, low), np.where(won, high, middle)
    return low


def _capital(mean: np.ndarray, ups: np.ndarray, downs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the logarithm of what bets that the mean is above `mean` have made of 1; it falls as `mean` rises."""
    counts = np.stack((ups, rows - ups - downs, downs))[:, :, None]
    ratios = np.stack([(value + 1) / (mean + 1) for value in (1.0, 0.0, -1.0)])[:, :, None]
    each = (counts * np.log1p(STAKES * (ratios - 1))).sum(axis=0)
    return np.logaddexp.reduce(each, axis=1) - np.log(len(STAKES))


def _listed(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[Bounds]:
    return [Bounds(*one) for one in zip(value.tolist(), low.tolist(), high.tolist(), strict=True)]
