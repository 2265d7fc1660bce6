"""Lengths in a few numbers."""

from collections.abc import Sequence
from math import ceil

QUANTILES = {"median": 0.5, "90%": 0.9, "99%": 0.99, "longest": 1.0}


def quantile(lengths: Sequence[int], share: float) -> int:
    """Return the least of sorted lengths that so large a share of them does not exceed."""
    return lengths[ceil(share * len(lengths)) - 1]


def length_that_cuts(lengths: Sequence[int], share: float) -> int:
    """Return the least of sorted lengths beyond which no larger share of them goes."""
    return lengths[len(lengths) - 1 - int(share * len(lengths))]
