"""Loss and answers in batches are those of one at a time."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GenerationConfig

from pipeline.evaluation import loss
from pipeline.evaluation.answers import answer_all, answer_timed, up_to_end
from pipeline.evaluation.loss import Row, measure_loss, scored_tokens

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def expected(model: Any, rows: list[Row]) -> list[float]:
    """Of each row by itself, from the logits of all its positions."""
    nats = []
    for ids, mask in rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        losses = cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        nats.append(losses[torch.tensor(mask[1:], dtype=torch.bool)].sum().item())
    return nats


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
@pytest.mark.parametrize("piece", [7, 1024])
def test_the_loss_of_each_conversation_in_batches_and_pieces_equals_one_by_one(
    model: Any,
    tokenizer: Any,
    rows: list[Row],
    expected: list[float],
    batch_size: int,
    piece: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "CHUNK", piece)
    found = measure_loss(model, rows, batch_size, tokenizer.pad_token_id)
    assert found.nats == pytest.approx(expected, abs=1e-4)
    assert found.mean == pytest.approx(sum(expected) / sum(map(scored_tokens, rows)), abs=1e-5)
    assert found.samples_per_second > 0


def test_a_model_that_does_more_to_its_logits_than_its_head_keeps_that(rows: list[Row]) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 4096, "initializer_range": 1.0}
    model = Gemma2ForCausalLM(Gemma2Config(**shape, **sizes, final_logit_softcapping=2.0)).eval()
    ids, mask = [*rows[0][0]], [*rows[0][1]]
    labels = torch.tensor([[i if marked else -100 for i, marked in zip(ids, mask, strict=True)]])
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
    assert measure_loss(model, [(ids, mask)], 1, 0).mean == pytest.approx(expected, abs=1e-4)


def test_what_fills_up_short_rows_does_not_count(model: Any, rows: list[Row]) -> None:
    assert measure_loss(model, rows, 10, 2).nats == pytest.approx(measure_loss(model, rows, 10, 7).nats, abs=1e-4)


def test_the_first_token_never_counts(model: Any, rows: list[Row]) -> None:
    marked_first = [(ids, [1, *mask[1:]]) for ids, mask in rows]
    assert measure_loss(model, marked_first, 4, 2).nats == measure_loss(model, rows, 4, 2).nats


def test_a_model_that_has_diverged_has_no_loss(tokenizer: Any, rows: list[Row]) -> None:
    broken = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32)
    broken.get_output_embeddings().weight.data[:] = math.nan
    assert all(map(math.isnan, measure_loss(broken, rows, 4, 2).nats))
    assert len(answer_all(broken, tokenizer, [[{"role": "user", "content": "Hi"}]], 4, 1)) == 1


PROMPTS = ["What is 5 + 6?", "Hi", "Name the capital of France, please, if you know it.", "Spell cat."]


def test_answers_in_batches_equal_one_by_one_and_keep_their_order(model: Any, tokenizer: Any) -> None:
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    together = answer_all(model, tokenizer, chats, 12, 3)
    alone = answer_timed(model, tokenizer, PROMPTS, 12)
    assert together == [{"reply": one["reply"], "tokens": one["tokens"]} for one in alone]
    for one in alone:
        assert 0 < one["first_token_seconds"] < one["seconds"]
        assert (one["tokens_per_second"] > 0) == (one["tokens"] > 1)


def test_an_answer_ends_at_the_first_of_its_ends() -> None:
    assert up_to_end([4, 7, 2, 2, 9], GenerationConfig(eos_token_id=[2, 3])) == [4, 7]
    assert up_to_end([4, 7], GenerationConfig(eos_token_id=[2])) == [4, 7]


def test_tokens_are_counted_up_to_the_end_of_the_turn(model: Any, tokenizer: Any) -> None:
    chat = [{"role": "user", "content": PROMPTS[0]}]
    said = model.generate(
        **tokenizer.apply_chat_template([chat], add_generation_prompt=True, return_dict=True, return_tensors="pt"),
        max_new_tokens=12,
        do_sample=False,
    )[0]
    prompt = len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
    new = said[prompt:].tolist()
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    assert answer_all(model, tokenizer, [chat], 12, 1)[0]["tokens"] == len([t for t in new if t not in ends])
