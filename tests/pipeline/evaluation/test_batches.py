"""Batches hold everything, and are halved where memory is short."""

from typing import Any

import pytest
import torch

from common.errors import UserError
from pipeline.evaluation.batches import each_in_batches, padded, sorted_batches

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def in_batches(items: list[str], *how: Any) -> list[str]:
    """What is computed of each item, in the items' order."""
    results = dict(each_in_batches(items, *how))
    return [results[index] for index in range(len(items))]


def test_batches_hold_everything_longest_first() -> None:
    assert sorted_batches(["a", "cccc", "bb", "dd", ""], 2, len) == [["cccc", "bb"], ["dd", "a"], [""]]


def test_a_batch_has_no_more_tokens_than_it_may_but_one_item_at_least() -> None:
    assert sorted_batches(["a", "cccc", "bb", "dd", "e", ""], 3, len, most=3) == [
        ["cccc"],
        ["bb"],
        ["dd"],
        ["a", "e", ""],
    ]


@pytest.mark.parametrize("fits", [1, 2, 3, 4, 100])
def test_what_the_memory_does_not_hold_is_halved_and_said_once(fits: int, capsys: pytest.CaptureFixture) -> None:
    computed: list[int] = []

    def double(batch: list[str]) -> list[str]:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        computed.append(len(batch))
        return [text * 2 for text in batch]

    items = ["ccc", "a", "bb", "dddd", "", "eeeee", "ff"]
    assert in_batches(items, 4, len, double, CUDA, "counting") == [text * 2 for text in items]
    assert max(computed) <= fits
    assert sum(computed) == len(items)
    told = "counting: the GPU's memory does not hold 4 at once; trying half as many\n"
    assert capsys.readouterr().out == (told if fits < 4 else "")


def test_one_that_the_memory_does_not_hold_alone_is_named_with_its_length() -> None:
    def fail(batch: list[str]) -> list[str]:
        raise torch.OutOfMemoryError

    with pytest.raises(UserError, match=r"^counting: the GPU's free memory does not hold 5 tokens at once; ") as raised:
        in_batches(["eeeee", "a"], 4, len, fail, CUDA, "counting")
    assert "\n" not in str(raised.value)


def test_nothing_is_no_batch() -> None:
    assert in_batches([], 4, len, lambda batch: batch, CPU, "counting") == []


@pytest.mark.parametrize(
    ("left", "matrix", "present"),
    [(False, [[1, 2, 3], [4, 9, 9]], [[1, 1, 1], [1, 0, 0]]), (True, [[1, 2, 3], [9, 9, 4]], [[1, 1, 1], [0, 0, 1]])],
)
def test_rows_are_padded_to_the_longest(left: bool, matrix: list, present: list) -> None:
    ids, attention = padded([[1, 2, 3], [4]], 9, "cpu", left=left)
    assert (ids.tolist(), attention.tolist()) == (matrix, present)
