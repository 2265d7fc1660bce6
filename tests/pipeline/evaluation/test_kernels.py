"""What a GPU computes loss and answers by, on a CPU with the attention that Transformers has for it there."""

import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from pipeline.evaluation import continuous
from pipeline.evaluation.answers import answer_in_batches, greedy
from pipeline.evaluation.continuous import answer_continuously
from pipeline.evaluation.kernels import fused_norms, packs
from pipeline.evaluation.loss import Row, packed_nats, padded_nats
from pipeline.models.attention import attend_in_slots
from pipeline.models.chat import prompt_ids

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
PROMPTS = ["What is 5 + 6?", "Hi", "Name the capital of France, please, if you know it.", "Spell cat.", "Hi"]


def one_by_one(query: Any, key: Any, value: Any, starts: Any, longest: int, scale: float, window: int | None) -> Any:
    """What FlashAttention computes of prompts end to end, with the attention of a CPU."""
    assert longest == starts.diff().max()
    parts = [slice(*pair) for pair in pairwise(starts.tolist())]
    return torch.cat([attended(query[part], key[part], value[part], scale, causal=True) for part in parts])


def slot_by_slot(query: Any, keys: Any, values: Any, lengths: Any, scale: float, window: int | None) -> Any:
    """The same of a token of each slot."""
    known = zip(query, keys, values, lengths.tolist(), strict=True)
    return torch.cat([attended(one[None], key[:end], value[:end], scale) for one, key, value, end in known])


def attended(query: Any, key: Any, value: Any, scale: float, causal: bool = False) -> Any:
    turned = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
    output = scaled_dot_product_attention(*turned, scale=scale, is_causal=causal, enable_gqa=True)
    return output[0].transpose(0, 1)


PLAIN = "slots_plain"
AttentionInterface.register(PLAIN, partial(attend_in_slots, packed=one_by_one, one_each=slot_by_slot))


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[list[int]]:
    return [prompt_ids(tokenizer, [{"role": "user", "content": prompt}]) for prompt in PROMPTS]


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_rows_end_to_end_have_the_loss_that_they_have_side_by_side(
    model: Any, tokenizer: Any, rows: list[Row], batch_size: int | None
) -> None:
    packed = dict(packed_nats(model, rows, batch_size, "sdpa"))
    assert packed == pytest.approx(dict(padded_nats(model, rows, 4, tokenizer.pad_token_id)), abs=1e-4)
    assert model.config._attn_implementation == "sdpa"


def test_the_first_token_of_a_packed_row_never_counts(model: Any, rows: list[Row]) -> None:
    marked_first = [(ids, [1, *mask[1:]]) for ids, mask in rows]
    assert dict(packed_nats(model, marked_first, None, "sdpa")) == dict(packed_nats(model, rows, None, "sdpa"))


@pytest.mark.parametrize("at_once", [None, 2])
def test_answers_by_continuous_batching_are_those_of_one_at_a_time(
    model: Any, tokenizer: Any, prompts: list[list[int]], at_once: int | None
) -> None:
    settings = greedy(model, tokenizer, 12)
    alone = dict(answer_in_batches(model, settings, prompts, 1))
    together = dict(answer_continuously(model, settings, prompts, at_once, PLAIN))
    assert together == {number: tokens[: len(together[number])] for number, tokens in alone.items()}
    for tokens in together.values():
        assert len(tokens) == 12 or tokens[-1] in settings.eos_token_id
    assert model.config._attn_implementation == "sdpa"


def test_a_prompt_that_the_cache_has_no_room_for_is_left_out(
    model: Any, tokenizer: Any, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "tokens_that_fit", lambda _: 100)
    long = prompts[0] * 40
    answered = answer_continuously(model, greedy(model, tokenizer, 4), [prompts[1], long], None, PLAIN)
    assert [number for number, _ in answered] == [0]


def test_what_is_asked_in_vain_is_said_and_left_out(
    model: Any, tokenizer: Any, prompts: list[list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    model.forward = broken
    with caplog.at_level("INFO", continuous.__name__):
        assert not [*answer_continuously(model, greedy(model, tokenizer, 4), prompts, None, PLAIN)]
    (said,) = [record.message for record in caplog.records if record.name == continuous.__name__]
    assert said == f"continuous batching leaves {len(prompts)} to batches: no such kernel"


def test_a_norm_is_fused_where_it_gives_the_same(model: Any, rows: list[Row], tokenizer: Any) -> None:
    before = dict(padded_nats(model, rows, 4, tokenizer.pad_token_id))
    with fused_norms(model):
        fused = [module for module in model.modules() if "forward" in vars(module)]
        assert len(fused) == 2 * model.config.num_hidden_layers + 1
        assert dict(padded_nats(model, rows, 4, tokenizer.pad_token_id)) == pytest.approx(before, abs=1e-4)
    assert not [module for module in model.modules() if "forward" in vars(module)]


def test_a_norm_that_does_more_is_left_as_it_is(model: Any) -> None:
    norm = model.model.norm
    norm.forward = own = lambda hidden: 2 * type(norm).forward(norm, hidden)  # as a library's hook has it
    with fused_norms(model):
        assert norm.forward is own
    assert norm.forward is own
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    other = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, num_key_value_heads=1, head_dim=16, vocab_size=64)).eval()
    ids = torch.arange(8)[None]
    with torch.inference_mode(), fused_norms(other):
        inside = other(input_ids=ids).logits
    with torch.inference_mode():
        assert torch.equal(inside, other(input_ids=ids).logits)  # its norms multiply by one more than their weight


def test_a_cpu_packs_nothing(model: Any) -> None:
    assert not packs(model)
    assert continuous.tokens_that_fit(model) == sys.maxsize
