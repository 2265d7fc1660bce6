"""NEFTune's noise: how large it is, where there is none, and that layout does not change that."""

import math
from typing import Any

import pytest
import torch
from architectures import FAMILIES
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from pipeline.training.loss import learn_from_supervised
from pipeline.training.noise import Noise, conversation_tokens
from pipeline.training.updates import Conversations, Layout

LENGTHS = (40, 9, 150)
ALPHA = 5.0


def batch(packed: bool) -> dict[str, Any]:
    ids = [list(range(length)) for length in LENGTHS]
    data = Conversations({"input_ids": ids, "labels": [list(row) for row in ids]}, Layout(8, packed, 256), 2)
    return data[data.split(range(len(data)))[0]]


def noise_on(family: str, packed: bool, training: bool = True, whole: bool = False) -> torch.Tensor:
    """What is added to the embeddings of a micro-batch, of shape (rows, tokens, width)."""
    torch.manual_seed(0)
    base: Any = AutoModelForCausalLM.from_config(FAMILIES[family])
    if whole:
        lora = LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)
        get_peft_model(base, lora)
    learn_from_supervised(base)
    seen: list[torch.Tensor] = []
    base.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    Noise(base, ALPHA)
    base.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    left_out = {"labels", "tokens"}
    base.train(training)(**{key: value for key, value in batch(packed).items() if key not in left_out})
    return seen[1] - seen[0]


def by_conversation(noise: torch.Tensor, packed: bool) -> list[torch.Tensor]:
    """The noise of each, longest first, as an update has them."""
    longest_first = sorted(LENGTHS, reverse=True)
    if packed:
        return list(noise[0].split([*longest_first, noise.shape[1] - sum(LENGTHS)]))[: len(LENGTHS)]
    return [row[:length] for row, length in zip(noise, longest_first, strict=True)]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("packed", [False, True])
def test_it_is_as_large_as_the_papers_for_each_conversation(family: str, packed: bool) -> None:
    for noise in by_conversation(noise_on(family, packed), packed):
        bound = ALPHA / math.sqrt(noise.numel())  # its tokens times the width
        assert 0.98 * bound < noise.abs().max() <= 1.001 * bound
        assert noise.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)  # of a uniform distribution
        assert noise.mean().abs() < 0.1 * bound


def test_padding_has_none() -> None:
    noise = noise_on("llama", packed=False)
    for row, length in zip(noise, sorted(LENGTHS, reverse=True), strict=True):
        assert row[length:].abs().sum() == 0


@pytest.mark.parametrize("packed", [False, True])
def test_evaluation_has_none(packed: bool) -> None:
    assert noise_on("llama", packed, training=False).abs().sum() == 0


def test_embeddings_that_learn_have_it_too() -> None:
    assert noise_on("llama", packed=False, whole=True).abs().sum() > 0


def test_a_packed_row_counts_each_conversations_tokens() -> None:
    packed = conversation_tokens(batch(packed=True))
    assert packed.shape == batch(packed=True)["input_ids"].shape
    assert packed[0, : sum(LENGTHS)].tolist() == [n for n in sorted(LENGTHS, reverse=True) for _ in range(n)]
