"""Votes for one of two, of voters who may vote several times: how sure one is after each that more is to be had by it.

A bet on votes is a martingale where nobody can tell the two apart, however often one looks (Ville 1939). The votes of
one voter hang together, so they are one bet: what a voter can win or lose for it is bounded, and among voters of whom
half would always take the one and half the other, whole voters count as the coins that they are.
"""

import math

import numpy as np

from pipeline.statistics.sequences import HALVINGS, STAKES, Bounds


def evidence(values: np.ndarray, voters: np.ndarray, most: int) -> np.ndarray:
    """Return, after each vote, the logarithm of what bets that the mean vote is above 0 have made of 1.

    It is above log(1 / level) at any vote no more often than `level` says, where no vote can be foretold; so it is for
    votes that voters cast by tastes of their own, once each voter has cast all.

    Args:
        values: float [votes], within -1 and 1: 1 for the one, -1 for the other, 0 for neither.
        voters: int [votes], the number of whose each is, from 0.
        most: votes that a voter casts at most; each is that part of the voter's bet.
    """
    parts = values / most
    sums = _sums_of_voters(parts, voters)
    won = np.log1p(STAKES * sums[:, None]) - np.log1p(STAKES * (sums - parts)[:, None])
    return _mixed(np.cumsum(won, axis=0))


def vote_bounds(values: np.ndarray, voters: np.ndarray, most: int, level: float) -> Bounds:
    """Return the mean vote and between what it lies, however often one has looked before.

    Args:
        values: as for `evidence`.
        voters: as for `evidence`.
        most: as for `evidence`.
        level: how often the truth may be outside, on either side.
    """
    if not len(values):
        return Bounds(0.0, -1.0, 1.0)
    counts, sums, goal = np.bincount(voters), np.bincount(voters, weights=values), np.log(2 / level)
    return Bounds(float(values.mean()), _lowest(sums, counts, most, goal), -_lowest(-sums, counts, most, goal))


def more_votes(values: np.ndarray, voters: np.ndarray, most: int, goal: float) -> float:
    """Return about how many more votes as these bring the evidence to `goal`; infinity where none would.

    Args:
        values: as for `evidence`.
        voters: as for `evidence`.
        most: as for `evidence`.
        goal: the logarithm of what bets must make of 1.
    """
    won = np.log1p(STAKES * np.bincount(voters, weights=values / most)[:, None]).sum(axis=0)
    missing = goal + np.log(len(STAKES)) - won  # of each stake alone, which is one of many
    needed = [len(values) * float(of) / float(one) for of, one in zip(missing, won, strict=True) if one > 0]
    return max(min(needed, default=math.inf), 0.0)


def _sums_of_voters(parts: np.ndarray, voters: np.ndarray) -> np.ndarray:
    """Return, after each vote, what its voter's come to."""
    order = np.argsort(voters, kind="stable")
    sums = np.cumsum(parts[order])
    first = np.flatnonzero(np.diff(voters[order], prepend=-1))  # of each voter
    before = np.repeat(sums[first] - parts[order][first], np.diff(first, append=len(parts)))
    found = np.empty_like(parts)
    found[order] = sums - before
    return found


def _lowest(sums: np.ndarray, counts: np.ndarray, most: int, goal: float) -> float:
    """Return the lowest mean against which no bet has won so much."""
    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = ((sums + counts) / (middle + 1) - counts) / most  # a voter loses the stake at most
        if _mixed(np.log1p(STAKES * above[:, None]).sum(axis=0)) >= goal:
            low = middle
        else:
            high = middle
    return low


def _mixed(logarithms: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean over STAKES, which are the last axis."""
    return np.logaddexp.reduce(logarithms, axis=-1) - np.log(len(STAKES))
