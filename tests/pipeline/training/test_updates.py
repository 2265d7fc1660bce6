"""Updates: the same conversations however they are laid out, over micro-batches and processes."""

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.training.updates import IGNORED, Conversations, Layout, MicroBatch, Updates, balanced

PADDED, PACKED = (Layout(rows=4, packed=packed, max_length=64) for packed in (False, True))
LAYOUTS = [PADDED, PACKED, replace(PACKED, few_counts=True)]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[list[int]]]:
    """Forty conversations of 3 to 64 tokens, of which about the last half is learnt."""
    draw = random.Random(3)
    ids = [[draw.randrange(1, 500) for _ in range(draw.randint(3, 64))] for _ in range(40)]
    labels = [[IGNORED] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]
    return {"input_ids": ids, "labels": labels}


def learnt(conversations: Conversations, update: list[MicroBatch]) -> list[int]:
    return sorted(row for part in update for row in part.rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_epoch_learns_from_every_conversation_once_on_whichever_process(
    rows: Any, layout: Layout, processes: int
) -> None:
    conversations = Conversations(rows, layout, 0)
    alone = list(Updates(conversations, 12, seed=5))
    shared = [list(Updates(conversations, 12, 5, process, processes)) for process in range(processes)]
    assert len(alone) == 4 == len(Updates(conversations, 12, seed=5))
    for number, update in enumerate(alone):
        parts = [learnt(conversations, of_process[number]) for of_process in shared]
        assert sorted(row for part in parts for row in part) == learnt(conversations, update)
        assert {part[0].supervised for part in (of[number] for of in shared)} == {update[0].supervised}
    assert sorted(row for update in alone for row in learnt(conversations, update)) == list(range(40))


def test_the_order_follows_from_seed_and_epoch_alone(rows: Any) -> None:
    padded, packed = (Conversations(rows, layout, 0) for layout in (PADDED, PACKED))
    first, again = Updates(padded, 12, seed=0), Updates(packed, 12, seed=0)
    zeroth = [learnt(padded, update) for update in first]
    assert zeroth == [learnt(packed, update) for update in again]
    for updates in (first, again):
        updates.set_epoch(3)
    third = [learnt(padded, update) for update in first]
    assert third == [learnt(packed, update) for update in again] != zeroth
    assert [learnt(padded, update) for update in Updates(padded, 12, seed=1)] != zeroth


def test_a_packed_micro_batch_holds_no_more_tokens_than_its_rows_at_full_length(rows: Any) -> None:
    conversations = Conversations(rows, PACKED, 0)
    parts = conversations.split(range(40))
    tokens = [sum(conversations.lengths[row] for row in part.rows) for part in parts]
    assert max(tokens) <= PACKED.capacity == 256
    assert len(parts) <= -(-sum(tokens) // 256) + 1
    assert min(tokens) > 128  # about as many in each


def test_the_rows_of_padded_micro_batches_stand_longest_first(rows: Any) -> None:
    conversations = Conversations(rows, PADDED, 0)
    parts = conversations.split(range(40))
    lengths = [conversations.lengths[row] for part in parts for row in part.rows]
    assert lengths == sorted(lengths, reverse=True)
    assert {len(part.rows) for part in parts} == {4}


def test_each_group_is_given_about_as_many_tokens() -> None:
    lengths = [9, 8, 7, 6, 5, 4, 3, 2, 1]
    groups = balanced(range(9), lengths, 3)
    assert sorted(sum(lengths[row] for row in group) for group in groups) == [14, 15, 16]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_targets_are_what_follows_their_positions_and_never_another_conversations(rows: Any, layout: Layout) -> None:
    conversations = Conversations(rows, layout, 0)
    for part in conversations.split(range(40)):
        batch = conversations[part]
        ids = batch["input_ids"].flatten()
        assert torch.equal(ids[batch["positions"] + 1], batch["targets"])
        wanted = sorted(i for row in part.rows for i in conversations.labels[row].tolist() if i != IGNORED)
        assert sorted(batch["targets"].tolist()) == wanted
        assert batch["tokens"] == sum(conversations.lengths)
        assert batch["num_items_in_batch"] == sum(conversations.supervised)


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_a_packed_row_says_where_each_conversation_begins(rows: Any, layout: Layout) -> None:
    conversations = Conversations(rows, layout, 0)
    part = conversations.split(range(10))[0]
    batch = conversations[part]
    starts, length = batch["cu_seq_lens_q"].tolist(), batch["input_ids"].shape[1]
    assert starts[0] == 0
    assert starts[-1] == length
    assert starts == sorted(starts)
    assert length % 64 == 0
    assert not layout.few_counts or len(starts) % 16 == 1
    for start, row in zip(starts, part.rows, strict=False):
        end = start + conversations.lengths[row]
        assert torch.equal(batch["input_ids"][0, start:end], conversations.ids[row])
        assert batch["position_ids"][0, start:end].tolist() == list(range(end - start))
    assert max(b - a for a, b in itertools.pairwise(starts)) <= batch["max_length_q"]
