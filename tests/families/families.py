"""A tiny model of each family: its true tokenizer and architecture, random weights.

    write_model("qwen-3", folder)

A family is added here, with what its models' config.json and generation_config.json say, and to vocabularies.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import vocabularies
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

# Where a real model looks thousands of tokens far, these look this far, so that a short text goes beyond it.
WINDOW = 64
TRAINED_LENGTH = 256
LENGTH = 4096


@dataclass(frozen=True, kw_only=True)
class Family:
    """What makes a model of a family."""

    tokenizer: Callable[[Path], None] = field(kw_only=False)  # writes its files into a folder
    model_type: str = field(kw_only=False)  # as Transformers has it
    vocabulary: int = field(kw_only=False)  # rows of the embedding, as the family's models have them
    ends: tuple[str, ...]  # tokens at which an answer ends
    settings: dict[str, Any]  # of its configuration
    lost: dict[str, Any] = field(default_factory=dict)  # the same without its scaling or its window
    reasons: bool = False  # whether its template knows reasoning
    preset: str = "llama-3.2-1b"  # in conf/model
    rate: float = 2e-4  # of learning


def _rope(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | scaling}


def _longrope(pairs: int, share: float) -> dict[str, Any]:
    """Phi's, with a factor for each pair of dimensions; a context beyond TRAINED_LENGTH takes the long ones."""
    long = [1.0 + 15.0 * at / pairs for at in range(pairs)]
    factors = {"rope_type": "longrope", "short_factor": [1.0] * pairs, "long_factor": long}
    return _rope(10000.0, **factors, **BEYOND, partial_rotary_factor=share) | BEYOND | {"sliding_window": LENGTH}


BEYOND = {"original_max_position_embeddings": TRAINED_LENGTH}
LLAMA_3_ROPE = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **BEYOND}
YARN = {"rope_type": "yarn", "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0, **BEYOND}
GPT_OSS_ROPE = YARN | {"factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
WINDOWED, NO_WINDOW = {"sliding_window": WINDOW}, {"sliding_window": LENGTH}
TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
# Of rows that 256 divides, K-quants are made as of large models; elsewhere they fall back to types with smaller blocks.
WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
OWN_HEADS = {"head_dim": 32}  # no fraction of the width
GRANITE = {"embedding_multiplier": 12.0, "attention_multiplier": 0.015625}
GRANITE |= {"residual_multiplier": 0.22, "logits_scaling": 8.0}
SIX_LAYERS = {"num_hidden_layers": 6, "query_pre_attn_scalar": 32}  # of which the last looks beyond the window

FAMILIES = {
    "llama-3.2": Family(
        vocabularies.llama_3,
        "llama",
        128256,
        ends=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        settings=_rope(500000.0, **LLAMA_3_ROPE) | TIED,
        lost=_rope(500000.0),
    ),
    "llama-2": Family(vocabularies.llama_2, "llama", 32000, ends=("</s>",), settings=_rope(10000.0) | UNTIED | WIDE),
    "qwen-2.5": Family(
        vocabularies.qwen_2_5,
        "qwen2",
        151936,
        ends=("<|im_end|>", "<|endoftext|>"),
        settings=_rope(1000000.0) | TIED,
        preset="qwen2.5-0.5b",
    ),
    "qwen-3": Family(
        vocabularies.qwen_3,
        "qwen3",
        151936,
        ends=("<|im_end|>", "<|endoftext|>"),
        settings=_rope(1000000.0) | TIED | OWN_HEADS,
        reasons=True,
    ),
    "gemma-3": Family(
        vocabularies.gemma_3,
        "gemma3_text",
        262144,
        ends=("<end_of_turn>", "<eos>"),
        settings={"rope_parameters": GEMMA_ROPE} | WINDOWED | TIED | OWN_HEADS | SIX_LAYERS,
        lost=NO_WINDOW,
        preset="gemma-3-1b",
    ),
    "gemma-4": Family(
        vocabularies.gemma_4,
        "gemma4_text",
        262144,
        ends=("<turn|>", "<eos>", "<|tool_response>"),
        settings={"global_head_dim": 64, "hidden_size_per_layer_input": 0, "final_logit_softcapping": 30.0}
        | (WINDOWED | TIED | OWN_HEADS | SIX_LAYERS),
        lost=NO_WINDOW,
    ),
    "mistral-v0.3": Family(
        vocabularies.mistral_v0_3,
        "mistral",
        32768,
        ends=("</s>",),
        settings=_rope(1000000.0) | UNTIED | WIDE,
        preset="mistral-7b",
    ),
    "mistral-nemo": Family(
        vocabularies.mistral_nemo,
        "mistral",
        131072,
        ends=("</s>",),
        settings=_rope(1000000.0) | UNTIED | OWN_HEADS,
    ),
    "ministral-3": Family(
        vocabularies.ministral_3,
        "ministral3",
        131072,
        ends=("</s>",),
        settings=_rope(1000000.0, **YARN, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1) | TIED | OWN_HEADS,
        lost=_rope(1000000.0, llama_4_scaling_beta=0.0, **BEYOND),
        reasons=True,
    ),
    "phi-3.5": Family(
        vocabularies.phi_3_5,
        "phi3",
        32064,
        ends=("<|endoftext|>", "<|end|>", "<|assistant|>"),
        settings=_longrope(32, 1.0) | UNTIED | WIDE,
        lost=_rope(10000.0, partial_rotary_factor=1.0),
    ),
    "phi-4-mini": Family(
        vocabularies.phi_4_mini,
        "phi3",
        200064,
        ends=("<|endoftext|>", "<|end|>"),
        settings=_longrope(12, 0.75) | TIED,
        lost=_rope(10000.0, partial_rotary_factor=0.75),
    ),
    "smollm2": Family(
        vocabularies.smollm_2,
        "llama",
        49152,
        ends=("<|im_end|>",),
        settings=_rope(100000.0) | TIED | WIDE,
        preset="smollm2-135m",
    ),
    "smollm3": Family(
        vocabularies.smollm_3,
        "smollm3",
        128256,
        ends=("<|im_end|>",),
        settings=_rope(5000000.0) | TIED | {"num_hidden_layers": 4},  # of which the last has no positions
        reasons=True,
    ),
    "granite-3.3": Family(
        vocabularies.granite_3_3,
        "granite",
        49159,
        ends=("<|end_of_text|>",),
        settings=_rope(10000000.0) | TIED | WIDE | GRANITE,
        preset="granite-3.3-2b",
    ),
    "deepseek": Family(  # as its distilled models are
        vocabularies.deepseek,
        "llama",
        129280,
        ends=("<｜end▁of▁sentence｜>",),  # noqa: RUF001
        settings=_rope(10000.0) | UNTIED,
        reasons=True,
    ),
    "gpt-oss": Family(
        vocabularies.gpt_oss,
        "gpt_oss",
        201088,
        ends=("<|return|>", "<|endoftext|>", "<|call|>"),
        settings={"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 64, "max_position_embeddings": 131072}
        | (_rope(150000.0, **GPT_OSS_ROPE) | UNTIED | WINDOWED),
        lost=NO_WINDOW,
        reasons=True,
        rate=2e-3,  # attention alone has an adapter, its experts have none
    ),
}


def write_model(name: str, folder: Path, **settings: Any) -> Path:
    """Writes a tiny model of the family as a Transformers folder, in bf16; the same each time.

    Args:
        name: one of FAMILIES.
        folder: to make.
        settings: of the configuration, over the family's.

    Raises:
        NotFetched: its tokenizer is not to be had.
        UserError: nor are llama.cpp's sources.
    """
    folder.mkdir(parents=True)
    FAMILIES[name].tokenizer(folder)
    config = _config(FAMILIES[name], AutoTokenizer.from_pretrained(folder), settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            _randomize(parameter, config.hidden_size)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(folder)
    return folder


def _config(family: Family, tokenizer: Any, settings: dict[str, Any]) -> Any:
    small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
    small |= {"num_hidden_layers": 2, "max_position_embeddings": LENGTH, "vocab_size": family.vocabulary}
    ends = tokenizer.convert_tokens_to_ids(list(family.ends))
    special = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(
        family.model_type,
        **small | special | {"eos_token_id": ends if ends[1:] else ends[0]} | family.settings | settings,
    )


def _randomize(parameter: torch.Tensor, width: int) -> None:
    """Draws weights under which positions, biases and norms all count in the logits, as in trained models."""
    if parameter.dim() > 1:
        parameter.normal_(std=1.6 / width**0.5)
    else:
        parameter.add_(torch.empty_like(parameter).normal_(std=0.1))
