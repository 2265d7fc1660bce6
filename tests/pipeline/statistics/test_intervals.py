"""The bootstrap's intervals where theory says what they are."""

import math

import numpy as np
import pytest

from pipeline.statistics.intervals import bootstrap, share


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    found = bootstrap(values, np.ones(400))
    error = values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for _ in range(100):
        found = bootstrap(random.exponential(1.0, size=60), np.ones(60))
        inside += found.low <= 1.0 <= found.high
    assert 85 <= inside <= 99


def test_long_conversations_count_by_their_tokens() -> None:
    assert bootstrap([10.0, 1.0], [90.0, 10.0]).value == pytest.approx(0.11)


def test_what_is_hard_for_both_widens_no_difference() -> None:
    hard = np.random.default_rng(3).exponential(5.0, size=50)
    apart = bootstrap(hard, np.ones(50))
    paired = bootstrap(hard - (hard - 0.1), np.ones(50))
    assert apart.high - apart.low > 1
    assert paired.high - paired.low < 1e-9
    assert paired.low == pytest.approx(0.1)


def test_the_same_gives_the_same_and_of_one_alone_no_interval_is_known() -> None:
    values = [1.0, 5.0, 2.0]
    assert bootstrap(values, [1, 2, 3]) == bootstrap(values, [1, 2, 3])
    alone = bootstrap([4.0], [2.0])
    assert alone.value == 2.0
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


@pytest.mark.parametrize(("count", "far"), [(1, 0.975), (6, 0.4593), (482, 0.0076)])
def test_a_share_of_all_or_nothing_is_no_surer_than_its_number(count: int, far: float) -> None:
    assert share([False] * count) == pytest.approx((0, 0, far), abs=5e-5)
    assert share([True] * count) == pytest.approx((1, 1 - far, 1), abs=5e-5)


def test_any_other_share_is_a_mean() -> None:
    assert share([True, False, True]) == bootstrap([1.0, 0.0, 1.0], [1.0] * 3)


def test_a_figure_that_is_no_number_stays_none() -> None:
    assert all(map(math.isnan, bootstrap([1.0, math.nan], [1, 1])))
