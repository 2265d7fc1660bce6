"""Loss and answers on a GPU: packed rows and continuous batching give what rows and questions give one by one.

`make test-gpu` runs this. Rounding in bfloat16 follows the order in which a kernel adds up, so that nats are alike
within a thousandth on average, and a near tie may end in the other word.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.evaluation.answers import answer_all, answer_in_batches, greedy
from pipeline.evaluation.continuous import answer_continuously
from pipeline.evaluation.kernels import packs
from pipeline.evaluation.loss import measure_loss, padded_nats, scored_tokens
from pipeline.models.chat import encode, prompt_ids

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
REPO = Path(__file__).parents[2]
STARTER = REPO / "starter/models/starter-m"
NATS = 1e-3  # a token
SAME = 0.9  # of answers
CHATS = [json.loads(line)["messages"] for line in (REPO / "starter/chats.jsonl").read_text().splitlines()[:300]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.bfloat16, device_map="cuda").eval()


def test_packed_rows_have_the_loss_of_padded_ones(model: Any, tokenizer: Any) -> None:
    assert packs(model)
    rows = [row for chat in CHATS for row in encode(tokenizer, chat, 512)]
    packed = measure_loss(model, rows, None, tokenizer.pad_token_id).nats
    alone = dict(padded_nats(model, rows, 1, tokenizer.pad_token_id))
    tokens = [scored_tokens(row) for row in rows]
    most = max(abs(nats - alone[at]) / tokens[at] for at, nats in enumerate(packed))
    apart = abs(sum(packed) - sum(alone.values())) / sum(tokens)
    print(f"{len(rows)} rows: {apart:.1e} nats a token apart, {most:.1e} at most in a row")
    assert apart < NATS
    assert most < 100 * NATS


@pytest.mark.parametrize("at_once", [None, 16])
def test_answers_by_continuous_batching_are_those_of_one_by_one(
    model: Any, tokenizer: Any, at_once: int | None
) -> None:
    prompts = [prompt_ids(tokenizer, chat[:1]) for chat in CHATS[:60]]
    settings = greedy(model, tokenizer, 64)
    alone = dict(answer_in_batches(model, settings, prompts, 1))
    together = dict(answer_continuously(model, settings, prompts, at_once))
    same = sum(tokens == alone[number][: len(tokens)] for number, tokens in together.items())
    print(f"{same} of {len(prompts)} answers are the same")
    assert same >= SAME * len(prompts)
    assert len(together) == len(prompts)
    replies = answer_all(model, tokenizer, [chat[:1] for chat in CHATS[:60]], 64, at_once)
    assert all(0 < reply["tokens"] <= 64 for reply in replies)
