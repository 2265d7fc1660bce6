"""How sure a mean is: confidence intervals by the bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
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
