"""The search space: what Hydra's grammar lists or bounds, and what is drawn from it."""

import math
from collections import Counter

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from common.errors import UserError
from pipeline.sweeps.space import Dimension, combinations, dimensions, sample


def space(*overrides: str) -> list[Dimension]:
    return dimensions(OverridesParser.create().parse_overrides(list(overrides)))


def test_lists_choices_and_ranges_are_values_as_overrides_have_them() -> None:
    listed = space(
        "train.lr=1e-4,2e-4", "a=choice(x,'y z',true)", "b=range(1,6,2)", "fixed=3", "train.lora={r:1},{r:2}"
    )
    assert {each.key: each.values for each in listed} == {
        "train.lr": ("0.0001", "0.0002"),
        "a": ("x", "y\\ z", "True"),
        "b": ("1", "3", "5"),
        "train.lora": ("{r:1}", "{r:2}"),
    }


def test_the_last_of_a_key_counts_and_a_value_counts_once() -> None:
    (dimension,) = space("a=1,2", "a=3,4,3")
    assert dimension.values == ("3", "4")


def test_combinations_are_all_there_are_the_last_key_fastest() -> None:
    assert combinations(space("a=1,2", "b=x,y")) == [
        {"a": "1", "b": "x"},
        {"a": "1", "b": "y"},
        {"a": "2", "b": "x"},
        {"a": "2", "b": "y"},
    ]
    assert combinations([]) == [{}]


def test_an_interval_and_a_million_combinations_want_a_sample() -> None:
    with pytest.raises(UserError, match=r"^a is an interval without an end of values; set hydra\.sweeper\.trials"):
        combinations(space("a=interval(0,1)"))
    many = space(*(f"k{number}=range(10)" for number in range(6)))
    with pytest.raises(UserError, match=r"^the space has 1,000,000 combinations; set hydra\.sweeper\.trials"):
        combinations(many)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ("a=interval(2,1)", "a=interval(2,1): an interval has a lower bound below its upper one"),
        (
            "a=tag(log,interval(0,1))",
            "a=tag(log,interval(0,1)): an interval has a lower bound below its upper one, above 0",
        ),
        (
            "a=tag(loog,interval(1,2))",
            "a=tag(loog,interval(1,2)): the tag loog is not known; an interval may have log or int",
        ),
    ],
)
def test_an_interval_that_nothing_can_be_drawn_from_is_refused(interval: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        space(interval)
    assert str(raised.value) == said


def test_what_is_drawn_lies_between_the_bounds_evenly_on_its_scale() -> None:
    (even, log, whole) = space("a=interval(0.0,1.0)", "b=tag(log,interval(1e-5,1e-1))", "c=tag(int,interval(1,4))")
    drawn = sample([even, log, whole], 2000, seed=0)
    assert sum(float(each["a"]) < 0.5 for each in drawn) == pytest.approx(1000, abs=120)
    assert sum(math.log10(float(each["b"])) < -3 for each in drawn) == pytest.approx(1000, abs=120)
    assert set(Counter(each["c"] for each in drawn)) == {"1", "2", "3", "4"}
    assert all(0 <= float(each["a"]) <= 1 and 1e-5 <= float(each["b"]) <= 1e-1 for each in drawn)


def test_a_sample_is_its_seeds_and_a_larger_one_begins_with_the_smaller() -> None:
    listed = space("a=1,2,3,4", "b=interval(0,1)")
    assert sample(listed, 5, seed=3) == sample(listed, 9, seed=3)[:5]
    assert sample(listed, 5, seed=3) != sample(listed, 5, seed=4)


def test_a_sample_has_each_combination_once_and_at_most_all() -> None:
    drawn = sample(space("a=1,2,3", "b=x,y"), 100, seed=0)
    assert len(drawn) == 6
    assert len({tuple(each.items()) for each in drawn}) == 6
