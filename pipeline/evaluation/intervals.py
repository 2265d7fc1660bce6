"""How sure a mean is: confidence intervals by the bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0  # the same samples give the same interval


class Interval(NamedTuple):
    """A figure and the bounds between which it lies with CONFIDENCE; nan where they are not known."""

    value: float
    low: float
    high: float


def bootstrap(totals: Sequence[float] | np.ndarray, weights: Sequence[float]) -> Interval:
    """The sum of `totals` over the sum of `weights`, and how much it differs from sample to sample.

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
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(value, float(low), float(high))
