"""Bounds that hold at every number of rows: as often as they say, and as close as they can be."""

import math

import numpy as np
import pytest

from pipeline.statistics.sequences import first_decided, first_rows, mean_bounds, share_above, share_bounds

LEVEL = 0.05
FIRST = first_rows(LEVEL)
SAMPLES, ROWS = 200, 300


def missed(bounds: list, truth: float) -> bool:
    return any(low > truth or high < truth for _, low, high in bounds)


def test_a_mean_is_within_its_bounds_at_every_row_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    wrong = sum(missed(mean_bounds(random.normal(0.3, 2, ROWS), np.ones(ROWS), LEVEL), 0.3) for _ in range(SAMPLES))
    assert wrong <= LEVEL * SAMPLES


def test_a_ratio_of_rows_of_different_lengths_is_too() -> None:
    random, wrong = np.random.default_rng(2), 0
    for _ in range(SAMPLES):
        tokens = np.round(random.lognormal(4, 0.7, ROWS)) + 1
        nats = random.normal(0.5, 0.2, ROWS) * tokens + 5 * random.standard_t(3, ROWS)
        wrong += missed(mean_bounds(nats, tokens, LEVEL), 0.5)
    assert 0 < wrong <= LEVEL * SAMPLES


@pytest.mark.parametrize(("up", "down"), [(0.1, 0.1), (0.3, 0.1), (0.02, 0.02), (0.0, 0.0), (1.0, 0.0)])
def test_a_share_is_within_its_bounds_at_every_row_as_often_as_they_say(up: float, down: float) -> None:
    random, wrong = np.random.default_rng(3), 0
    for _ in range(50):
        values = random.choice([1, 0, -1], size=ROWS, p=[up, 1 - up - down, down])
        wrong += missed(share_bounds(values, LEVEL), up - down)
    assert wrong <= LEVEL * 50


def test_an_interval_looked_at_after_each_row_would_be_wrong_far_more_often() -> None:
    random, wrong, rows = np.random.default_rng(4), 0, np.arange(1, ROWS + 1)
    for _ in range(SAMPLES):
        means = np.cumsum(random.normal(0, 1, ROWS)) / rows
        wrong += bool((np.abs(means) > 1.96 / np.sqrt(rows))[FIRST:].any())
    assert wrong > 4 * LEVEL * SAMPLES


def test_bounds_of_a_mean_are_less_than_twice_as_wide_as_an_interval_at_one_number_of_rows() -> None:
    values = np.random.default_rng(5).normal(0, 1, 2000)
    bounds = mean_bounds(values, np.ones(2000), LEVEL)
    for rows in (100, 200, 500, 2000):
        interval = 1.96 * values[:rows].std() / math.sqrt(rows)
        half = (bounds[rows - 1].high - bounds[rows - 1].low) / 2
        assert interval < half < 2 * interval


def test_a_clear_difference_of_losses_is_told_by_few_rows() -> None:
    random = np.random.default_rng(6)
    bounds = mean_bounds(random.normal(0.1, 0.2, 500), np.ones(500), LEVEL)
    decided = first_decided(bounds, 0.0)
    assert decided is not None
    assert decided <= FIRST


def test_a_few_rows_far_on_one_side_widen_the_bound_on_that_side() -> None:
    """Nineteen of twenty rows lose a little, one gains all of it back: what few rows would call worse."""
    random = np.random.default_rng(8)
    values = [np.where(random.random(ROWS) < 0.05, 1.9, -0.1) + random.normal(0, 0.02, ROWS) for _ in range(SAMPLES)]
    assert sum(missed(mean_bounds(one, np.ones(ROWS), LEVEL), 0.0) for one in values) <= LEVEL * SAMPLES
    value, low, high = mean_bounds(values[0], np.ones(ROWS), LEVEL)[-1]
    assert high - value > 1.3 * (value - low)


def test_what_is_never_told_is_not_decided() -> None:
    assert first_decided(mean_bounds([1.0, -1.0] * 50, np.ones(100), LEVEL), 0.0) is None


def test_bounds_are_infinite_before_the_first_rows_and_for_shares_within_one() -> None:
    random = np.random.default_rng(7)
    few = mean_bounds(random.normal(9, 1, FIRST), np.ones(FIRST), LEVEL)
    assert all(math.isinf(low) and math.isinf(high) for _, low, high in few[:-1])
    assert math.isfinite(few[-1].low)
    assert all(-1 <= low <= value <= high <= 1 for value, low, high in share_bounds(random.integers(-1, 2, 50), LEVEL))


def test_rows_that_are_all_alike_have_bounds_of_one_point() -> None:
    assert mean_bounds([2.0] * FIRST, [4.0] * FIRST, LEVEL)[-1] == pytest.approx((0.5, 0.5, 0.5))


def test_long_rows_count_by_their_tokens() -> None:
    assert mean_bounds([10.0, 1.0], [90.0, 10.0], LEVEL)[-1].value == pytest.approx(0.11)


def test_a_figure_that_is_no_number_tells_nothing_from_its_row_on() -> None:
    bounds = mean_bounds([0.1] * 40 + [math.nan] + [0.1] * 10, np.ones(51), LEVEL)
    assert first_decided(bounds[40:], 0.0) is None
    assert math.isnan(bounds[-1].value)


def test_scores_between_right_and_wrong_only_widen_the_bounds() -> None:
    whole, parts = share_bounds([1.0, 0.0] * 50, LEVEL)[-1], share_bounds([0.5] * 100, LEVEL)[-1]
    assert parts == pytest.approx(whole)


def test_a_share_is_above_a_limit_where_its_bounds_are() -> None:
    values = np.random.default_rng(9).choice([1, 0, -1], size=ROWS, p=[0.3, 0.6, 0.1])
    above = [low > 0 for _, low, _ in share_bounds(values, LEVEL)]
    assert share_above(values, 0.0, LEVEL).tolist() == above
    assert set(above) == {False, True}
