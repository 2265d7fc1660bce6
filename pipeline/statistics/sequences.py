"""Bounds that hold at every number of rows at once, so that measuring may stop as soon as they tell.

A confidence interval holds at the one number of rows that was settled beforehand; who looks after each row, and stops
when it suits, is wrong far more often than it says. A confidence sequence is wrong no more often than its level however
often one looks: it holds what a bet against the truth cannot have won (Ville 1939).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RARE = 0.04  # a share of rows unlike the others: there are no bounds of a mean before some of them are sure to be there
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
    totals: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray, level: float, first: int | None = None
) -> list[Bounds]:
    """Return, after each row, the sum of `totals` over the sum of `weights`, and between what it lies.

    By a mixture of sequential t-tests (Lai 1976; Wang & Ramdas 2025) of what a row's total is above the ratio's share
    of its weight: exact for normal rows of any variance, and for others as their number grows. Of rows of which a few
    are far on one side, the bound on that side is wider by what their skewness tells (Hall 1992).

    Args:
        totals: of each row, such as nats, or differences of nats.
        weights: of each row, such as tokens; above zero.
        level: how often the truth may be outside, at any row, on either side.
        first: rows before which the bounds are infinite; as `first_rows` has it, if it is not given.
    """
    sums, counts = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if not len(sums):
        return []
    rows, overall = np.arange(1, len(sums) + 1), sums.sum() / counts.sum()
    spread = _spread(sums - overall * counts, counts, rows)
    reach = t_range(rows, spread.skewness, level, first)
    with np.errstate(invalid="ignore"):  # rows may be alike to the last digit
        low, high = np.where(np.isinf(reach), reach, spread.error * reach)
    return _listed(overall + spread.ratio, overall + spread.ratio + low, overall + spread.ratio + high)


def t_range(rows: np.ndarray, skewness: np.ndarray, level: float, first: int | None = None) -> np.ndarray:
    """Return by how many standard errors a mean may be above and below what is found: negative ones, then positive.

    Args:
        rows: how many there are.
        skewness: of them.
        level: as for `mean_bounds`.
        first: as for `mean_bounds`.
    """
    far = np.sqrt(_t_limits(rows, level, first_rows(level) if first is None else first))
    with np.errstate(invalid="ignore"):
        low, high = -_unskewed(far, rows, skewness), -_unskewed(-far, rows, skewness)
        return np.where(np.isnan(skewness), np.nan, np.stack([np.fmin(low, -far), np.fmax(high, far)]))


def first_rows(level: float) -> int:
    """Return the number of rows among which none is of a RARE kind no more often than `level` says."""
    return math.ceil(math.log(level) / math.log(1 - RARE))


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


def share_above(values: Sequence[float] | np.ndarray, limit: float, level: float) -> np.ndarray:
    """Return, after each row, whether `share_bounds` are above a limit, at a fraction of their cost."""
    each = np.asarray(values, dtype=np.float64)
    ups, downs = np.cumsum(np.maximum(each, 0.0)), np.cumsum(np.maximum(-each, 0.0))
    rows = np.arange(1, len(each) + 1, dtype=np.float64)
    return _capital(np.full(len(each), limit), ups, downs, rows) >= np.log(2 / level)


def first_decided(bounds: Sequence[Bounds], limit: float) -> int | None:
    """Return the number of rows after which the figure was first known to be above `limit`, or below; None if never."""
    decided = (index for index, (_, low, high) in enumerate(bounds, start=1) if low > limit or high < limit)
    return next(decided, None)


class _Spread(NamedTuple):
    """Of a ratio after each row: its standard error, and how skewed rows are about it."""

    ratio: np.ndarray
    error: np.ndarray
    skewness: np.ndarray


def _spread(sums: np.ndarray, counts: np.ndarray, rows: np.ndarray) -> _Spread:
    """Return what the first row says, the first two, and so on; sums of powers are of what is left of the ratio."""
    ratio = np.cumsum(sums) / np.cumsum(counts)

    def mean(totals: int, weights: int) -> np.ndarray:
        return np.cumsum(sums**totals * counts**weights) / rows

    second = mean(2, 0) - 2 * ratio * mean(1, 1) + ratio**2 * mean(0, 2)
    third = mean(3, 0) - 3 * ratio * mean(2, 1) + 3 * ratio**2 * mean(1, 2) - ratio**3 * mean(0, 3)
    variance = np.maximum(second, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.where(variance > 0, third / variance**1.5, np.where(np.isnan(second), np.nan, 0.0))
    return _Spread(ratio, np.sqrt(variance / np.maximum(rows - 1, 1)) / mean(0, 1), skewness)


def _t_limits(rows: np.ndarray, level: float, first: int) -> np.ndarray:
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


def _unskewed(far: np.ndarray, rows: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Return Student's t whose transform by Hall, which is not skewed, is `far`."""
    part = np.where(np.abs(skewness) < 1e-6, 1e-6, skewness) / np.sqrt(rows)
    return 3 / part * (np.cbrt(1 + part * (far - part / 6)) - 1)


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
