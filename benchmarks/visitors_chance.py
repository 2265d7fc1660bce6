"""The cheap half: how often gate and canary promote a model by votes that mean nothing; nothing is trained for it."""

from collections.abc import Sequence
from itertools import islice
from random import Random
from statistics import fmean

import numpy as np
from pipeline.canary.decision import decide
from pipeline.canary.duels import Duel

from benchmarks.visitors_taste import visitors
from pipeline.core.config import CanarySettings
from pipeline.statistics.paired import paired_choices


def by_chance(new: Sequence[bool], old: Sequence[bool], turns: int, level: float) -> float:
    """Return the share of turns that the gate lets through when each held-out pair is turned round by a coin.

    Args:
        new: of each pair, whether the new model finds the chosen answer likelier.
        old: whether the old one does.
        turns: how many.
        level: the gate's.
    """
    rng, ours, theirs = np.random.default_rng(0), np.array(new), np.array(old)
    coins = (rng.random(len(ours)) < 0.5 for _ in range(turns))
    found = (paired_choices((ours ^ coin).tolist(), (theirs ^ coin).tolist(), level, 0.0) for coin in coins)
    return fmean(one.finding == "better" for one in found)


def canaries_by_chance(turns: int, settings: CanarySettings) -> float:
    """Return the share of canaries after whose votes, each a coin, the candidate is promoted."""
    return fmean(
        decide(coins(seed, settings.max_votes), settings, is_over=True).found == "better" for seed in range(turns)
    )


def coins(seed: int, count: int) -> list[Duel]:
    """Return so many blind votes of visitors who throw a coin, in the order in which they come."""
    rng = Random(seed)
    whose = [*islice((visitor.id for visitor in visitors(count, seed) for _ in range(visitor.visits)), count)]
    rng.shuffle(whose)
    return [Duel((), visitor, rng.choice((-1.0, 1.0)), is_vote=True) for visitor in whose]
