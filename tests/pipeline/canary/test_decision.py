"""When duels tell a candidate from the champion."""

import numpy as np
import pytest

from pipeline.canary.decision import Decision, decide
from pipeline.canary.duels import Duel
from pipeline.core.config import CanarySettings

LEVEL, VOTES = 0.005, 2000


def settings(level: float = LEVEL, max_votes: int = VOTES) -> CanarySettings:
    return CanarySettings(
        level=level, per_visitor=5, max_votes=max_votes, max_days=28, on_better="promote", on_worse="rollback"
    )


def duels(random: np.random.Generator, count: int, wins: float) -> list[Duel]:
    """So many, of visitors with one to five, a fifth of them won by neither."""
    visitors = np.repeat(np.arange(count), random.integers(1, 6, count))[:count]
    won = np.where(random.random(count) < 0.2, 0, np.where(random.random(count) < wins, 1, -1))
    return [
        Duel((f"{number}",), str(visitor), float(value), is_vote=True)
        for number, (visitor, value) in enumerate(zip(visitors, won, strict=True))
    ]


def ends(wins: float, canaries: int, count: int) -> list[Decision]:
    random = np.random.default_rng(1)
    return [decide(duels(random, count, wins), settings(), is_over=True) for _ in range(canaries)]


def test_of_a_thousand_canaries_of_equal_models_no_more_are_decided_than_the_level_says() -> None:
    """Each is looked at after every vote: a decision is the first."""
    found = [one.found for one in ends(0.5, 1000, 500)]
    assert found.count("better") <= LEVEL * 1000
    assert found.count("worse") <= LEVEL * 1000
    assert found.count("undecided") > 980


@pytest.mark.parametrize(("wins", "share"), [(0.55, 0.2), (0.6, 0.9), (0.65, 0.99)])
def test_a_better_model_is_found_by_the_votes_that_there_may_be(wins: float, share: float) -> None:
    better = [one for one in ends(wins, 100, VOTES) if one.found == "better"]
    assert len(better) >= share * 100
    assert all(one.bounds.low > 0.5 for one in better)
    if wins == 0.65:
        assert np.median([one.duels for one in better]) < 400


def test_a_worse_one_is_found_as_a_better_one_is() -> None:
    these = duels(np.random.default_rng(2), VOTES, 0.65)
    turned = [Duel(one.records, one.visitor, -one.value, one.is_vote) for one in these]
    better, worse = (decide(some, settings(), is_over=False) for some in (these, turned))
    assert (better.found, worse.found) == ("better", "worse")
    assert better.duels == worse.duels
    assert better.bounds.low == pytest.approx(1 - worse.bounds.high)


def test_the_decision_is_the_same_whenever_one_looks() -> None:
    these = duels(np.random.default_rng(3), VOTES, 0.65)
    whole = decide(these, settings(), is_over=False)
    assert whole == decide(these[: whole.duels], settings(), is_over=True)
    before = decide(these[: whole.duels - 1], settings(), is_over=False)
    assert before.found == "open"
    assert before.more is not None
    assert 0 < before.more < 100
    assert decide(these[: whole.duels - 1], settings(), is_over=True).found == "undecided"


def test_it_ends_undecided_after_the_last_vote_that_counts() -> None:
    these = duels(np.random.default_rng(4), 300, 0.5)
    assert decide(these, settings(), is_over=False).found == "open"
    assert decide(these, settings(max_votes=300), is_over=False).found == "undecided"
    assert decide(these, settings(max_votes=200), is_over=False).duels == 200


def test_no_duels_tell_nothing_and_no_number_of_draws_would() -> None:
    nothing = decide([], settings(), is_over=False)
    assert (nothing.found, nothing.duels, nothing.bounds, nothing.more) == ("open", 0, (0.5, 0.0, 1.0), None)
    drawn = [Duel((str(number),), str(number), 0.0, is_vote=True) for number in range(50)]
    assert decide(drawn, settings(), is_over=False).more is None


def test_a_few_visitors_cannot_decide_it_however_often_they_vote() -> None:
    one = [Duel((str(number),), "one", 1.0, is_vote=True) for number in range(5)]
    assert decide(one, settings(level=0.05), is_over=False).found == "open"
    three = [Duel((str(number),), f"{number % 3}", 1.0, is_vote=True) for number in range(15)]
    assert decide(three, settings(level=0.05), is_over=False).found == "open"
