"""Votes of voters who vote several times: evidence that is wrong as seldom as it says, however often one looks."""

import math
from itertools import accumulate

import numpy as np
import pytest

from pipeline.statistics.sequences import STAKES
from pipeline.statistics.votes import evidence, more_votes, vote_bounds

LEVEL, MOST = 0.05, 5
GOAL = math.log(2 / LEVEL)


def voted(random: np.random.Generator, votes: int, wins: float = 0.5, tastes: float = 0.0) -> tuple:
    """Votes of voters who come anew or again, each MOST times at most, a fifth of them for neither."""
    voters = random.permutation(np.repeat(np.arange(votes), random.integers(1, MOST + 1, votes))[:votes])
    _, voters = np.unique(voters, return_inverse=True)
    chances = (wins + tastes * random.choice([1, -1], votes))[voters]
    values = np.where(random.random(votes) < chances, 1.0, -1.0)
    return np.where(random.random(votes) < 0.2, 0.0, values), voters


def test_the_bet_of_a_voter_is_one_whatever_comes_between_its_votes() -> None:
    values, voters = np.array([1.0, -1.0, 1.0, 0.0, 1.0]), np.array([0, 1, 0, 1, 0])
    sums = list(
        accumulate(zip(values, voters, strict=True), lambda s, v: {**s, v[1]: s[v[1]] + v[0]}, initial={0: 0.0, 1: 0.0})
    )
    made = [
        np.log(np.mean([math.prod(1 + stake * s / MOST for s in each.values()) for stake in STAKES]))
        for each in sums[1:]
    ]
    assert evidence(values, voters, MOST) == pytest.approx(made)


@pytest.mark.parametrize("tastes", [0.0, 0.4])
def test_equal_models_are_told_apart_at_any_vote_as_seldom_as_the_level_says(tastes: float) -> None:
    random = np.random.default_rng(1)
    wrong = [bool((evidence(*voted(random, 400, tastes=tastes), MOST) >= GOAL).any()) for _ in range(600)]
    assert sum(wrong) <= LEVEL / 2 * len(wrong)


def test_votes_that_were_counted_one_by_one_would_be_wrong_where_tastes_differ() -> None:
    """What the bet of a voter is for: among 400 votes of 20 voters the same ones come again and again."""
    random, wrong = np.random.default_rng(2), np.zeros(2)
    for _ in range(200):
        voters = np.repeat(np.arange(20), 20)
        values = np.where(random.random(400) < (0.5 + 0.4 * random.choice([1, -1], 20))[voters], 1.0, -1.0)
        wrong += [
            (evidence(values, number, most) >= GOAL).any() for number, most in ((voters, 20), (np.arange(400), 1))
        ]
    assert wrong[0] <= LEVEL / 2 * 200 < wrong[1]


def test_bounds_hold_the_mean_vote_and_agree_with_the_evidence() -> None:
    random, wrong = np.random.default_rng(3), 0
    for _ in range(100):
        values, voters = voted(random, 300, wins=0.6)
        mean, low, high = vote_bounds(values, voters, MOST, LEVEL)
        assert mean == pytest.approx(values.mean())
        assert (low > 0) == bool(evidence(values, voters, MOST)[-1] >= GOAL)
        wrong += not low <= 0.8 * 0.2 <= high
    assert wrong <= LEVEL * 100


def test_more_votes_as_these_bring_the_evidence_about_where_it_was_to_come() -> None:
    values, voters = voted(np.random.default_rng(4), 400, wins=0.65)
    made = evidence(values, voters, MOST)
    needed = int(np.argmax(made >= GOAL)) + 1
    half = needed // 2
    assert half < half + more_votes(values[:half], voters[:half], MOST, GOAL) < 4 * needed
    assert more_votes(-values, voters, MOST, GOAL) == math.inf
    assert more_votes(np.zeros(0), np.zeros(0, int), MOST, GOAL) == math.inf


def test_no_votes_say_nothing() -> None:
    assert evidence(np.zeros(0), np.zeros(0, int), MOST).tolist() == []
    assert vote_bounds(np.zeros(0), np.zeros(0, int), MOST, LEVEL) == (0.0, -1.0, 1.0)
