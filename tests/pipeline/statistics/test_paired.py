"""Two models on the same rows: what is said of them, and what it takes to say so."""

import math
from functools import partial

import numpy as np
import pytest

from pipeline.statistics.paired import Paired, finding, holm, paired_choices, paired_loss, paired_share

LEVEL, MARGIN = 0.005, 0.02


def rows(fall: float, count: int = 300, seed: int = 1, spread: float = 0.1) -> Paired:
    """The finding on a model that is better by so many nats a token."""
    random = np.random.default_rng(seed)
    tokens = random.integers(20, 200, count).astype(float)
    old = random.gamma(4, 0.5, count) * tokens
    return paired_loss(old - random.normal(fall, spread, count) * tokens, old, tokens, LEVEL, MARGIN)


@pytest.mark.parametrize(("fall", "said"), [(0.1, "better"), (0.0, "no worse"), (-0.1, "worse")])
def test_a_difference_of_losses_is_found_for_what_it_is(fall: float, said: str) -> None:
    found = rows(fall, 2000)
    assert found.finding == said
    assert found.low <= fall <= found.high
    assert (found.figure, found.rows, found.more) == ("loss", 2000, None)


def test_few_rows_that_are_alike_show_no_difference_of_any_size() -> None:
    found = paired_loss([2.0] * 50, [2.0] * 50, [1.0] * 50, LEVEL, MARGIN)
    assert (found.finding, found.low, found.high, found.smallest) == ("cannot tell", -np.inf, np.inf, np.inf)
    assert found.more == 82  # of a kind that is one in 25, so many more are sure to have some


def test_few_rows_cannot_tell_a_small_difference() -> None:
    assert rows(-0.02, 60).finding == "cannot tell"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 1, "better"),
        (-0.01, 1, "no worse"),
        (-0.01, -0.001, "no worse"),
        (-0.5, -0.001, "worse"),
        (-0.5, 0.5, "cannot tell"),
        (math.nan, math.nan, "cannot tell"),
    ],
)
def test_what_bounds_say(low: float, high: float, said: str) -> None:
    assert finding(low, high, MARGIN) == said


def test_coin_flips_on_forty_questions_tell_nothing() -> None:
    random = np.random.default_rng(2)
    found = paired_share(random.random(40) < 0.6, random.random(40) < 0.5, LEVEL, MARGIN)
    assert found.finding == "cannot tell"
    assert found.difference > 0.1  # which is what once promoted it
    assert found.more is not None
    assert found.more > 40


def test_the_rows_that_would_tell_do_where_the_difference_stays() -> None:
    tokens = np.ones(60)
    falls = np.tile([0.4, -0.3, 0.1], 20)  # 0.067 a token
    found = paired_loss(-falls, np.zeros(60), tokens, LEVEL, MARGIN)
    assert found.finding == "cannot tell"
    assert found.more is not None
    enough = -np.tile(falls, 100)[: 60 + found.more + 3]
    assert paired_loss(enough, np.zeros(len(enough)), np.ones(len(enough)), LEVEL, MARGIN).finding == "no worse"
    half = enough[: 60 + found.more // 2]
    assert paired_loss(half, np.zeros(len(half)), np.ones(len(half)), LEVEL, MARGIN).finding == "cannot tell"


def test_no_number_of_rows_tells_two_alike_apart_without_a_margin() -> None:
    falls = np.tile([0.1, -0.1], 100)
    assert paired_loss(falls, np.zeros(200), np.ones(200), LEVEL, 0.0).more is None
    assert paired_loss(falls, np.zeros(200), np.ones(200), LEVEL, 0.001).more is not None


def test_the_smallest_difference_is_seen_four_times_in_five_and_half_of_it_is_not() -> None:
    smallest = float(np.median([rows(0.0, seed=seed).smallest for seed in range(20)]))
    seen, half = (
        sum(rows(fall, seed=seed).finding == "better" for seed in range(100)) for fall in (smallest, smallest / 2)
    )
    assert half < 80 <= seen


def test_the_smallest_share_is_seen_four_times_in_five_and_half_of_it_is_not() -> None:
    random = np.random.default_rng(3)

    def pair(rise: float) -> Paired:
        values = random.choice([1, 0, -1], size=300, p=[0.1 + rise / 2, 0.8, 0.1 - rise / 2])
        return paired_share(np.maximum(values, 0), np.maximum(-values, 0), LEVEL, MARGIN)

    smallest = float(np.median([pair(0.0).smallest for _ in range(10)]))
    seen, half = (sum(pair(rise).finding == "better" for _ in range(60)) for rise in (smallest, smallest / 2))
    assert half < 48 <= seen


def test_a_test_that_would_have_gone_on_sees_less() -> None:
    new, old = [True, False] * 50, [False, False] * 50
    assert paired_share(new, old, LEVEL, MARGIN, 1000).smallest < paired_share(new, old, LEVEL, MARGIN).smallest


def test_too_few_rows_see_nothing() -> None:
    alone = paired_loss([1.0], [2.0], [1.0], LEVEL, MARGIN)
    assert (alone.finding, alone.smallest, alone.more) == ("cannot tell", math.inf, None)
    assert paired_share([True] * 3, [False] * 3, LEVEL, MARGIN).smallest == math.inf


def test_the_same_file_twice_on_few_rows_is_not_told_from_itself() -> None:
    found = rows(0.0, 60, spread=0.0)
    assert (found.finding, found.difference, found.smallest) == ("cannot tell", 0.0, math.inf)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_of_many_tasks_without_a_difference_hardly_ever_one_is_found() -> None:
    random, wrong = np.random.default_rng(4), 0
    for _ in range(40):
        tasks = [
            partial(paired_share, random.random(100) < 0.5, random.random(100) < 0.5, margin=0.0) for _ in range(10)
        ]
        wrong += any(found.finding != "cannot tell" for found in holm(tasks, 0.05))
    assert wrong <= 4


def test_what_tells_leaves_its_part_of_the_level_to_the_rest() -> None:
    clear = partial(paired_share, [True] * 60, [False] * 60, margin=0.0)
    even = partial(paired_share, [True, False] * 30, [False, True] * 30, margin=0.0)
    found = holm([even, clear], 0.01)
    assert [one.finding for one in found] == ["cannot tell", "better"]
    assert [one.level for one in found] == [0.01, 0.005]


def test_what_is_no_worse_keeps_its_part_of_the_level_since_it_may_still_be_called_better() -> None:
    alike = partial(paired_share, [True] * 1000, [True] * 1000, margin=0.1)
    even = partial(paired_share, [True, False] * 30, [False, True] * 30, margin=0.0)
    found = holm([even, alike], 0.01)
    assert [one.finding for one in found] == ["cannot tell", "no worse"]
    assert [one.level for one in found] == [0.005, 0.005]


def choices(won: int, lost: int, alike: int = 0, level: float = LEVEL) -> Paired:
    """The finding on so many pairs, of which the new one alone has some right, and the old one alone."""
    new, old = [True] * won + [False] * lost + [True] * alike, [False] * won + [True] * lost + [True] * alike
    return paired_choices(new, old, level, MARGIN)


def mcnemar(won: int, lost: int) -> float:
    """The exact test's p, two-sided: how often a coin falls so far to one side, or farther."""
    count, far = won + lost, min(won, lost)
    return min(1.0, 2 * sum(math.comb(count, some) for some in range(far + 1)) / 2**count)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 25, 60])
def test_choices_are_told_apart_where_mcnemars_exact_test_tells(count: int) -> None:
    for won in range(count + 1):
        found, told = choices(won, count - won, 40), mcnemar(won, count - won) < LEVEL
        assert (found.finding in ("better", "worse")) == told
        assert (found.low > 0 or found.high < 0) == told
        assert found.low <= found.difference <= found.high
        assert (found.won, found.lost, found.rows) == (won, count - won, count + 40)


def test_the_same_choices_are_no_worse_where_there_are_enough_of_them() -> None:
    few, many = choices(0, 0, 20), choices(0, 0, 2000)
    assert (few.finding, many.finding) == ("cannot tell", "no worse")
    assert -0.01 < many.low < 0 < many.high < 0.01
    assert (few.more, many.more) == (None, None)  # no pairs tell which of two is better that choose the same


def test_of_a_thousand_that_choose_by_a_coin_few_are_found_better_at_any_number_of_pairs() -> None:
    random = np.random.default_rng(5)
    for count in (12, 50, 200):
        coins = random.random((2, 1000, count)) < 0.6
        better = sum(
            paired_choices(new, old, LEVEL, MARGIN).finding == "better"
            for new, old in zip(*coins.tolist(), strict=True)
        )
        assert better <= 10


def test_bounds_of_choices_hold_the_truth() -> None:
    random, missed = np.random.default_rng(6), 0
    for _ in range(400):
        values = random.choice([1, 0, -1], size=80, p=[0.25, 0.65, 0.1])
        found = paired_choices((values > 0).tolist(), (values < 0).tolist(), 0.05, MARGIN)
        missed += not found.low <= 0.15 <= found.high
    assert missed <= 20


def test_the_smallest_difference_of_choices_is_seen_four_times_in_five_and_half_of_it_is_not() -> None:
    random = np.random.default_rng(7)

    def pair(rise: float) -> Paired:
        values = random.choice([1, 0, -1], size=300, p=[0.15 + rise / 2, 0.7, 0.15 - rise / 2])
        return paired_choices((values > 0).tolist(), (values < 0).tolist(), LEVEL, MARGIN)

    smallest = float(np.median([pair(0.0).smallest for _ in range(10)]))
    seen, half = (sum(pair(rise).finding == "better" for _ in range(100)) for rise in (smallest, smallest / 2))
    assert half < 80 <= seen


def test_the_pairs_that_would_tell_do_where_the_difference_stays() -> None:
    found = choices(12, 6, 42)
    assert found.finding == "cannot tell"
    assert found.more is not None
    times = (60 + found.more) / 60 * 1.05
    assert choices(round(12 * times), round(6 * times), round(42 * times)).finding == "better"
    assert choices(round(12 * times / 2), round(6 * times / 2), round(42 * times / 2)).finding != "better"
