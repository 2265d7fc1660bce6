"""What an adapter sits on, in models of several architectures without weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import FAMILIES
from transformers import AutoModelForCausalLM

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import TrainSettings, load
from pipeline.training.engines.trl import with_adapter
from pipeline.training.lora import is_adapted_linear
from pipeline.training.targets import coverage, shortened, spelt_out, target_names, targets

REPO = Path(__file__).parents[3]
TRAIN = load(compose(REPO / "conf", ["model=llama-3.2-1b", "train.lora.r=4"])).train
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Of each layer; a shared expert's gate, which is one number wide, is none.
ALL_LINEAR = {
    "llama": SEVEN,
    "untied": SEVEN,
    "phi3": ["o_proj", "qkv_proj", "gate_up_proj", "down_proj"],
    "qwen3": SEVEN,
    "gemma3": SEVEN,
    "gpt_oss": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen2_moe": SEVEN,
}


def bare(family: str) -> Any:
    """A model without weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(FAMILIES[family])


def asked(**lora: Any) -> TrainSettings:
    return replace(TRAIN, lora=replace(TRAIN.lora, **lora))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_is_every_projection_of_the_decoder(family: str) -> None:
    assert target_names(bare(family), TRAIN.lora) == ALL_LINEAR[family]
    adapted = with_adapter(bare(family), TRAIN.lora)
    found = [name for name, module in adapted.named_modules() if is_adapted_linear(module)]
    assert len(found) == FAMILIES[family].num_hidden_layers * len(ALL_LINEAR[family])


def test_all_linear_and_its_names_are_the_same_training() -> None:
    assert spelt_out(TRAIN, bare("llama")) == asked(target_modules=SEVEN)
    assert spelt_out(asked(target_modules=["q_proj"]), bare("llama")) == asked(target_modules=["q_proj"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("q_proj", ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        ("mlp.up_proj", ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]),
        ("model.layers.1.mlp.up_proj", ["model.layers.1.mlp.up_proj"]),
        ("lm_head", ["lm_head"]),
    ],
)
def test_a_name_is_the_last_part_of_a_modules(name: str, found: list[str]) -> None:
    assert list(targets(bare("untied"), asked(target_modules=[name]).lora)) == found


def test_names_are_short_where_they_name_no_others() -> None:
    one_layer = ["model.layers.1.mlp.up_proj", "lm_head"]
    assert shortened(bare("untied"), one_layer) == one_layer
    adapted = with_adapter(bare("untied"), asked(target_modules=one_layer).lora)
    assert sum(is_adapted_linear(module) for module in adapted.modules()) == 2


def test_names_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(UserError) as raised:
        targets(bare("phi3"), asked(target_modules=["q_proj", "o_proj", "gate_prj"]).lora)
    assert str(raised.value) == (
        "train.lora.target_modules names q_proj, gate_prj, which Phi3ForCausalLM does not have; it may be all-linear, "
        "or a list of embed_tokens, o_proj, qkv_proj, gate_up_proj, down_proj, lm_head"
    )
    with pytest.raises(UserError, match=r"^train\.lora\.modules_to_save names nrm, .* it may be a list of emb"):
        coverage(bare("phi3"), asked(modules_to_save=["nrm"]))


def test_what_learns_whole_is_what_is_named_and_no_more() -> None:
    adapted = with_adapter(bare("llama"), asked(modules_to_save=["norm"]).lora)
    whole = [name for name, _ in adapted.named_parameters() if "modules_to_save" in name]
    assert whole == ["base_model.model.model.norm.modules_to_save.default.weight"]


def test_what_is_covered_and_what_is_not_stands_in_one_line() -> None:
    model = bare("llama")
    (line,) = coverage(model, asked(target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens"]))
    share = 2 * (64 * 64 + 32 * 64) / sum(weight.numel() for weight in model.parameters())
    assert line == (
        f"adapter on 4 modules (q_proj, v_proj) with {share:.1%} of the weights; whole: embed_tokens; "
        "as they are: k_proj, o_proj, gate_proj, up_proj, down_proj"
    )
    assert coverage(bare("gpt_oss"), TRAIN)[0].endswith("; as they are: router, gate_up_proj, down_proj")
    assert "as they are" not in coverage(bare("phi3"), TRAIN)[0]
    assert coverage(model, replace(TRAIN, method="full")) == []
