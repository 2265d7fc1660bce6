"""How far trials go, how they are shared out over brackets, and who goes on."""

import math

import pytest

from common.errors import UserError
from pipeline.sweeps.rungs import bracket_rungs, bracket_sizes, promoted, rungs


@pytest.mark.parametrize(
    ("least", "most", "eta", "expected"),
    [
        (15, 120, 2, [15, 30, 60, 120]),
        (30, 120, 2, [30, 60, 120]),
        (16, 120, 2, [30, 60, 120]),  # never fewer than were asked for
        (1, 27, 3, [1, 3, 9, 27]),
        (1, 100, 3, [1, 3, 11, 33, 100]),
        (120, 120, 2, [120]),
        (1, 1, 2, [1]),
    ],
)
def test_rungs_go_down_from_the_last_as_far_as_the_least(least: int, most: int, eta: int, expected: list[int]) -> None:
    assert rungs(least, most, eta) == expected


def test_r5s_halving_takes_less_than_a_third_of_its_grid() -> None:
    going, before, steps = 108, 0, 0
    for step in rungs(15, 120, 2):
        steps += going * (step - before)
        going, before = len(promoted({number: number for number in range(going)}, going, 2)), step
    assert steps / (108 * 120) == pytest.approx(0.3125, abs=0.003)


def test_each_bracket_begins_a_rung_later() -> None:
    assert bracket_rungs([15, 30, 60], 3) == [[15, 30, 60], [30, 60], [60]]
    with pytest.raises(UserError, match=r"brackets is 4, and there are 3 rungs \(15, 30, 60\)"):
        bracket_rungs([15, 30, 60], 4)


@pytest.mark.parametrize("trials", [20, 81, 1000])
def test_brackets_take_about_the_same_steps(trials: int) -> None:
    brackets = bracket_rungs(rungs(1, 81, 3), 5)
    sizes = bracket_sizes(trials, brackets)
    assert sum(sizes) == trials
    budgets = [size * steps[0] * len(steps) for size, steps in zip(sizes, brackets, strict=True)]
    room = [steps[0] * len(steps) for steps in brackets]  # of one trial, by which a budget is rounded
    mean = sum(budgets) / len(budgets)
    assert all(abs(budget - mean) <= 1.5 * max(room) for budget in budgets)


def test_the_best_half_goes_on_and_equals_by_their_number() -> None:
    assert promoted({4: 0.3, 1: 0.2, 0: 0.2, 3: 0.9}, 4, 2) == [0, 1]


def test_who_failed_has_entered_all_the_same_and_one_always_goes_on() -> None:
    assert promoted({7: 1.0, 2: 3.0, 5: 2.0}, 6, 2) == [7, 5, 2]
    assert promoted({7: 1.0, 2: 3.0}, 6, 3) == [7, 2]
    assert promoted({7: math.inf}, 1, 2) == [7]
    assert promoted({}, 4, 2) == []
