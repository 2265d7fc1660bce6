"""Loss and answers in batches are those of one at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.evaluation.answers import answer_all, answer_timed
from pipeline.evaluation.batches import padded, sorted_batches
from pipeline.evaluation.loss import Conversation, measure_loss
from pipeline.training.chat import encode

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Conversation]:
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines()[:10]
    return [encode(tokenizer, json.loads(line)["messages"], 512) for line in lines]


def test_the_loss_in_batches_equals_one_by_one(model: Any, tokenizer: Any, rows: list[Conversation]) -> None:
    total, count = 0.0, 0
    for ids, mask in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        losses = cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        total += losses[torch.tensor(mask[1:], dtype=torch.bool)].sum().item()
        count += sum(mask[1:])
    for batch_size in (1, 3, 10, 64):
        nats, speed = measure_loss(model, rows, batch_size, tokenizer.pad_token_id)
        assert nats == pytest.approx(total / count, abs=1e-5)
        assert speed > 0


def test_what_fills_up_short_rows_does_not_count(model: Any, rows: list[Conversation]) -> None:
    assert measure_loss(model, rows, 10, 2)[0] == pytest.approx(measure_loss(model, rows, 10, 7)[0], abs=1e-6)


def test_the_first_token_never_counts(model: Any, rows: list[Conversation]) -> None:
    marked_first = [(ids, [1, *mask[1:]]) for ids, mask in rows]
    assert measure_loss(model, marked_first, 4, 2)[0] == measure_loss(model, rows, 4, 2)[0]


def test_answers_in_batches_equal_one_by_one_and_keep_their_order(model: Any, tokenizer: Any) -> None:
    prompts = ["What is 5 + 6?", "Hi", "Name the capital of France, please, if you know it.", "Spell cat."]
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    together = answer_all(model, tokenizer, chats, 12, 3)
    alone = answer_timed(model, tokenizer, prompts, 12)
    assert together == [one["reply"] for one in alone]
    assert all(one["seconds"] > 0 and one["tokens_per_second"] > 0 for one in alone)


def test_batches_hold_everything_longest_first() -> None:
    batches = list(sorted_batches(["a", "cccc", "bb", "dd", ""], 2, key=len))
    assert batches == [["cccc", "bb"], ["dd", "a"], [""]]


@pytest.mark.parametrize(
    ("left", "matrix", "present"),
    [(False, [[1, 2, 3], [4, 9, 9]], [[1, 1, 1], [1, 0, 0]]), (True, [[1, 2, 3], [9, 9, 4]], [[1, 1, 1], [0, 0, 1]])],
)
def test_rows_are_padded_to_the_longest(left: bool, matrix: list, present: list) -> None:
    ids, attention = padded([[1, 2, 3], [4]], 9, "cpu", left=left)
    assert (ids.tolist(), attention.tolist()) == (matrix, present)
