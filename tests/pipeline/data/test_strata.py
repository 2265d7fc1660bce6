"""Each source has some rows in each split of a share, if it has rows enough."""

import pytest

from pipeline.data.split import split
from pipeline.data.strata import with_each_source

CHOSEN = {"test": [["a1"]], "validation": [["a9"]], "train": [["b1"], ["b2", "a5"], ["b3", "b4"], ["b5"], ["c1"]]}
IN_ORDER = [["a1"], ["b1"], ["b2", "a5"], ["b3", "b4"], ["c1"], ["b5"], ["a9"]]
SOURCES = {key: key[0] for group in IN_ORDER for key in group}


def test_a_source_without_a_row_gets_its_share_from_the_end_that_the_split_is_taken_from() -> None:
    made = with_each_source(CHOSEN, IN_ORDER, SOURCES, {"test": 0.2, "validation": 0.2})
    assert made["test"] == [["a1"], ["b1"]]
    assert made["validation"] == [["a9"], ["b5"]]
    assert made["train"] == [["b2", "a5"], ["b3", "b4"], ["c1"]]  # of one row a fifth is none


def test_what_hangs_together_with_another_source_or_is_larger_than_the_share_stays() -> None:
    made = with_each_source(CHOSEN, IN_ORDER[2:4] + IN_ORDER[6:], SOURCES, {"validation": 0.4})
    assert made == CHOSEN


@pytest.mark.parametrize("seed", range(30))
def test_a_small_source_is_in_every_split_and_a_large_ones_rows_stay_where_they_were(seed: int) -> None:
    rows = {
        f"{source}-{n}": [{"role": "user", "content": f"{source} {n}"}, {"role": "assistant", "content": "Yes."}]
        for source, count in (("large", 600), ("small", 40))
        for n in range(count)
    }
    groups = [[key] for key in rows]
    plain = split(rows, 0.05, 0.05, seed, groups)  # type: ignore[arg-type]
    made = split(rows, 0.05, 0.05, seed, groups, {key: key.split("-")[0] for key in rows})  # type: ignore[arg-type]
    for name in ("validation", "test"):
        assert any(key.startswith("small") for key in made[name])
        assert {key for key in made[name] if key.startswith("large")} == {
            key for key in plain[name] if key.startswith("large")
        }
