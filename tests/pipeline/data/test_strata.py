"""Each source has some rows in each split of a share, if it has rows enough."""

import numpy as np
import pytest
from corpora import corpus_of

from pipeline.core.formats import Messages
from pipeline.data.split import split
from pipeline.data.strata import with_each_source

SOURCES = "aabbbbbcaa"  # of rows 0 to 9
CHOSEN = {"test": [[1]], "validation": [[9]], "train": [[2], [3, 8], [4, 5], [6], [7]]}
IN_ORDER = [[1], [2], [3, 8], [4, 5], [7], [6], [9]]


def pair(question: str) -> Messages:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]


def test_a_source_without_a_row_gets_its_share_from_the_end_that_the_split_is_taken_from() -> None:
    made = with_each_source(CHOSEN, IN_ORDER, SOURCES, {"test": 0.2, "validation": 0.2})
    assert made["test"] == [[1], [2]]
    assert made["validation"] == [[9], [6]]
    assert made["train"] == [[3, 8], [4, 5], [7]]  # of one row a fifth is none


def test_what_hangs_together_with_another_source_or_is_larger_than_the_share_stays() -> None:
    made = with_each_source(CHOSEN, IN_ORDER[2:4] + IN_ORDER[6:], SOURCES, {"validation": 0.4})
    assert made == CHOSEN


@pytest.mark.parametrize("seed", range(30))
def test_a_small_source_is_in_every_split_and_a_large_ones_rows_stay_where_they_were(seed: int) -> None:
    large, small = ([pair(f"{source} {n}") for n in range(count)] for source, count in (("large", 600), ("small", 40)))
    rows, groups = np.arange(640), [[row] for row in range(640)]
    plain = split(corpus_of([*large, *small]), rows, 0.05, 0.05, seed, groups)
    made = split(corpus_of(large, small, names="ls"), rows, 0.05, 0.05, seed, groups)
    for name in ("validation", "test"):
        assert max(made[name]) >= 600
        assert {row for row in made[name].tolist() if row < 600} == {row for row in plain[name].tolist() if row < 600}
