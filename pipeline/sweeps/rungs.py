"""Successive halving and Hyperband: how far trials go, and which of them go on.

Jamieson and Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter Optimization"; Li et al.
(2018), "Hyperband", whose brackets differ in the rung that they begin with, so that a trial that starts slowly has
one in which it is not dropped early.
"""

from collections.abc import Mapping, Sequence

from common.errors import UserError


def rungs(min_steps: int, max_steps: int, eta: int) -> list[int]:
    """Return the steps at which trials stop: `max_steps`, and from there down by `eta` as far as `min_steps`.

    >>> rungs(15, 120, 2)
    [15, 30, 60, 120]
    """
    steps = [max_steps]
    while steps[0] // eta >= min_steps and steps[0] // eta < steps[0]:
        steps.insert(0, steps[0] // eta)
    return steps


def bracket_rungs(steps: Sequence[int], brackets: int) -> list[list[int]]:
    """Return the rungs of each bracket: of each but the first, without the lowest of the one before.

    Raises:
        UserError: there are more brackets than rungs.
    """
    if brackets > len(steps):
        there = f"there are {len(steps)} rungs ({', '.join(map(str, steps))})"
        raise UserError(f"hydra.sweeper.brackets is {brackets}, and {there}; take at most as many")
    return [list(steps[bracket:]) for bracket in range(brackets)]


def bracket_sizes(trials: int, brackets: Sequence[Sequence[int]]) -> list[int]:
    """Return how many of the trials each bracket gets, so that all brackets take about the same steps.

    A bracket takes about as many steps in each of its rungs, so its trials are as many as a rung's budget has
    room for: inversely to its first stop and the number of its rungs.
    """
    shares = [1 / (steps[0] * len(steps)) for steps in brackets]
    ends = [round(trials * sum(shares[: index + 1]) / sum(shares)) for index in range(len(shares))]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def promoted(scores: Mapping[int, float], entered: int, eta: int) -> list[int]:
    """Return the trials that go on from a rung, the best first: one in `eta` of those that entered it, at least one.

    Args:
        scores: of those that finished the rung, by trial; less is better. Of equal ones the earlier trial is better.
        entered: trials that began it; those that failed or were given up are among the dropped.
        eta: the reduction factor.
    """
    best = sorted(scores, key=lambda trial: (scores[trial], trial))
    return best[: max(1, entered // eta)]
