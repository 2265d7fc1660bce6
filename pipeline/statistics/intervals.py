"""How sure a mean is: confidence intervals by the bootstrap, and exact ones of a share."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
HALVINGS = 40  # of the range in which an exact bound lies
CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
SEED = 0  # the same samples give the same interval


class Interval(NamedTuple):
    """A figure and the bounds between which it lies with CONFIDENCE; nan where they are not known."""

    value: float
    low: float
    high: float


def bootstrap(totals: Sequence[float] | np.ndarray, weights: Sequence[float]) -> Interval:
    """Return the sum of `totals` over the sum of `weights`, and how much it differs from sample to sample.

    Whole conversations, or questions, are drawn with replacement, since the tokens of one are not independent; the
    interval is from the percentiles (Efron & Tibshirani 1993, chapter 13). For two models on the same conversations,
    `totals` are differences: so what is hard for both counts for neither. Of a single one nothing says how much others
    differ from it: its bounds are nan.

    Args:
        totals: of each conversation, such as nats; nan where there is no such number.
        weights: of each conversation, such as tokens.
    """
    sums, counts = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    value = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return Interval(value, np.nan, np.nan)
    random = np.random.default_rng(SEED)
    draws = (random.integers(len(sums), size=len(sums)) for _ in range(RESAMPLES))
    means = [sums[draw].sum() / counts[draw].sum() for draw in draws]
    low, high = np.quantile(means, (TAIL, 1 - TAIL))
    return Interval(value, float(low), float(high))


def share(right: Sequence[bool]) -> Interval:
    """Return the share of right ones.

    Where all are alike, so are all resamples, and the bounds would be one point. There the far one is the share that
    gives so many alike with the probability of a tail (Clopper & Pearson 1934): of 6 wrong ones, 0 to 46%.
    """
    far = TAIL ** (1 / len(right))
    if all(right):
        return Interval(1.0, far, 1.0)
    if not any(right):
        return Interval(0.0, 0.0, 1 - far)
    return bootstrap([float(one) for one in right], [1.0] * len(right))


def exact_share(hits: int, count: int, level: float) -> Interval:
    """Return a share and the bounds that binomial chances leave it (Clopper & Pearson 1934); 0 to 1 of none at all.

    Args:
        hits: that there were.
        count: among so many.
        level: how often the truth may be outside; half of that on either side.
    """
    low, high = _least_chance(hits, count, level / 2), 1 - _least_chance(count - hits, count, level / 2)
    return Interval(hits / count if count else np.nan, low, high)


@lru_cache(maxsize=4096)
def _least_chance(hits: int, count: int, tail: float) -> float:
    """Return the smallest chance by which so many hits or more come up as often as `tail` says."""
    if not hits:
        return 0.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # of factorials
    found = np.arange(hits, count + 1)
    ways = logs[count] - logs[found] - logs[count - found]
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        chance = (low + high) / 2
        often = np.exp(ways + found * np.log(chance) + (count - found) * np.log1p(-chance)).sum()
        low, high = (low, chance) if often >= tail else (chance, high)
    return low
