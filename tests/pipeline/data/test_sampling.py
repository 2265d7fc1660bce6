"""Which rows are taken and how often: by what they say, and not by where they stand."""

from random import Random

import pytest

from pipeline.data.sampling import copies, copy_keys, sample

DIGESTS = [f"{n:064x}" for n in range(1000)]
SOURCES = ["small" if n < 100 else "large" for n in range(1000)]


def taken(order: list[int], **changes: object) -> set[str]:
    """The digests of what is taken where rows come in this order."""
    digests, sources = [DIGESTS[n] for n in order], [SOURCES[n] for n in order]
    settings: dict[str, object] = {"caps": {}, "most": None, "seed": 7}
    return {digests[n] for n in sample(digests, sources, **(settings | changes))}  # type: ignore[arg-type]


def test_without_bounds_all_rows_are_taken_in_their_order() -> None:
    assert sample(DIGESTS, SOURCES, {"small": None}, None, 7) == list(range(1000))


def test_a_cap_bounds_its_source_alone() -> None:
    numbers = sample(DIGESTS, SOURCES, {"large": 40}, None, 7)
    assert [SOURCES[n] for n in numbers].count("small") == 100
    assert [SOURCES[n] for n in numbers].count("large") == 40
    assert numbers == sorted(numbers)


def test_max_rows_is_of_all_that_the_caps_leave() -> None:
    numbers = sample(DIGESTS, SOURCES, {"large": 400}, 250, 7)
    assert len(numbers) == 250
    assert 30 < [SOURCES[n] for n in numbers].count("small") < 70


def test_the_order_of_rows_does_not_count_and_the_seed_does() -> None:
    shuffled = Random(1).sample(range(1000), 1000)
    bounds = {"caps": {"large": 300}, "most": 200}
    assert taken(list(range(1000)), **bounds) == taken(shuffled, **bounds)
    assert taken(list(range(1000)), **bounds) != taken(list(range(1000)), **bounds, seed=8)


def test_rows_that_come_to_a_source_move_few_of_those_taken() -> None:
    before, after = (
        taken(list(range(100, 900)), caps={"large": 100}),
        taken(list(range(100, 1000)), caps={"large": 100}),
    )
    assert len(before & after) >= 80


@pytest.mark.parametrize(("weight", "found"), [(1, {1}), (2, {2}), (0.5, {0, 1}), (2.25, {2, 3}), (0.001, {0})])
def test_a_weight_is_whole_copies_and_a_share_more(weight: float, found: set[int]) -> None:
    counts = copies(DIGESTS, SOURCES, {"small": weight}, 7)
    assert set(counts[:100]) == found
    assert sum(counts[:100]) == round(100 * weight)
    assert counts[100:] == [1] * 900


def test_which_rows_stand_once_more_goes_by_what_they_say() -> None:
    counts = dict(zip(DIGESTS, copies(DIGESTS, SOURCES, {"small": 0.5, "large": 1.5}, 7), strict=True))
    backwards = copies(DIGESTS[::-1], SOURCES[::-1], {"small": 0.5, "large": 1.5}, 7)
    assert counts == dict(zip(DIGESTS[::-1], backwards, strict=True))


def test_each_copy_has_a_key_of_its_own_and_the_first_the_rows() -> None:
    assert copy_keys("abc", 3) == ["abc", "abc#2", "abc#3"]
    assert copy_keys("abc", 0) == []
