"""Whether duels tell a candidate from the champion: the same at whatever moment one looks, and however often."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.canary.duels import Duel
from pipeline.core.config import CanarySettings
from pipeline.statistics.sequences import Bounds
from pipeline.statistics.votes import evidence, more_votes, vote_bounds

Finding = Literal["better", "worse", "undecided", "open"]


@dataclass(frozen=True)
class Decision:
    """What the first duels say."""

    found: Finding
    duels: int  # that it rests on: those up to the one that decided, else all that count
    bounds: Bounds  # of the candidate's win rate, a draw half a win
    more: int | None  # about how many would tell, if they were as these; None where none would, or none are needed


def decide(duels: Sequence[Duel], settings: CanarySettings, is_over: bool) -> Decision:
    """Return which of the two is better, by the first duel after which that is known.

    A model that is no better is found better, or one that is no worse found worse, in `level` / 2 of canaries each.

    Args:
        duels: in the order of time.
        settings: conf/canary's.
        is_over: whether no more come.
    """
    counted = duels[: settings.max_votes]
    values = np.array([duel.value for duel in counted])
    _, voters = np.unique([duel.visitor for duel in counted], return_inverse=True)
    most, goal = settings.per_visitor, math.log(2 / settings.level)
    first: dict[Finding, int] = {
        "better": _first(evidence(values, voters, most) >= goal),
        "worse": _first(evidence(-values, voters, most) >= goal),
    }
    found = min(first, key=lambda finding: first[finding])
    number = min(first[found], len(counted))
    rate = _as_rate(vote_bounds(values[:number], voters[:number], most, settings.level))
    if first[found] <= len(counted):
        return Decision(found, number, rate, None)
    if is_over or len(duels) >= settings.max_votes:
        return Decision("undecided", number, rate, None)
    more = min(more_votes(values, voters, most, goal), more_votes(-values, voters, most, goal))
    return Decision("open", number, rate, None if math.isinf(more) else math.ceil(more))


def _first(decided: np.ndarray) -> int:
    """Return the number of duels after which it was first so; more than there are where it never was."""
    return int(np.argmax(decided)) + 1 if decided.any() else len(decided) + 1


def _as_rate(mean: Bounds) -> Bounds:
    return Bounds(*((1 + value) / 2 for value in mean))
