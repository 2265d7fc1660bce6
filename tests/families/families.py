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


@dataclass(frozen=True)
class Family:
    """What makes a model of a family."""

    tokenizer: Callable[[Path], None]  # writes its files into a folder
    model_type: str  # as Transformers has it
    ends: tuple[str, ...]  # tokens at which an answer ends, the tokenizer's own first
    vocabulary: int  # rows of the embedding, as the family's models have them
    settings: dict[str, Any] = field(default_factory=dict)  # of its configuration


def _rope(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | scaling}


_LLAMA_3_ROPE = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0}
_BEYOND = {"original_max_position_embeddings": TRAINED_LENGTH}
_TIED, _UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
# Of rows that 256 divides, K-quants are made as of large models; elsewhere they fall back to types with smaller blocks.
_WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}


def _longrope(pairs: int) -> dict[str, Any]:
    long = [1.0 + 15.0 * at / pairs for at in range(pairs)]
    return {"rope_type": "longrope", "short_factor": [1.0] * pairs, "long_factor": long} | _BEYOND


FAMILIES = {
    "llama-3.2": Family(
        vocabularies.llama_3,
        "llama",
        ("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
        128256,
        _rope(500000.0, **_LLAMA_3_ROPE, **_BEYOND) | _TIED,
    ),
    "llama-2": Family(vocabularies.llama_2, "llama", ("</s>",), 32000, _rope(10000.0) | _UNTIED | _WIDE),
    "qwen-2.5": Family(
        vocabularies.qwen_2_5, "qwen2", ("<|im_end|>", "<|endoftext|>"), 151936, _rope(1000000.0) | _TIED
    ),
    "qwen-3": Family(
        vocabularies.qwen_3,
        "qwen3",
        ("<|im_end|>", "<|endoftext|>"),
        151936,
        _rope(1000000.0) | _TIED | {"head_dim": 32},
    ),
    "gemma-3": Family(
        vocabularies.gemma_3,
        "gemma3_text",
        ("<end_of_turn>", "<eos>"),
        262144,
        {
            "num_hidden_layers": 6,  # of which the last looks beyond the window
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": WINDOW,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        }
        | _TIED,
    ),
    "gemma-4": Family(
        vocabularies.gemma_4,
        "gemma4_text",
        ("<turn|>", "<eos>"),
        262144,
        {
            "num_hidden_layers": 6,
            "head_dim": 32,
            "global_head_dim": 64,
            "hidden_size_per_layer_input": 0,
            "sliding_window": WINDOW,
            "final_logit_softcapping": 30.0,
        }
        | _TIED,
    ),
    "mistral-v0.3": Family(vocabularies.mistral_v0_3, "mistral", ("</s>",), 32768, _rope(1000000.0) | _UNTIED | _WIDE),
    "mistral-nemo": Family(
        vocabularies.mistral_nemo, "mistral", ("</s>",), 131072, _rope(1000000.0) | _UNTIED | {"head_dim": 32}
    ),
    "ministral-3": Family(
        vocabularies.ministral_3,
        "ministral3",
        ("</s>",),
        131072,
        _rope(1000000.0, **_YARN, **_BEYOND, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1)
        | _TIED
        | {"head_dim": 32},
    ),
    "phi-3.5": Family(
        vocabularies.phi_3_5,
        "phi3",
        ("<|endoftext|>", "<|end|>", "<|assistant|>"),
        32064,
        _rope(10000.0, **_longrope(32), partial_rotary_factor=1.0)
        | _BEYOND
        | _UNTIED
        | _WIDE
        | {"sliding_window": LENGTH},
    ),
    "phi-4-mini": Family(
        vocabularies.phi_4_mini,
        "phi3",
        ("<|endoftext|>", "<|end|>"),
        200064,
        _rope(10000.0, **_longrope(12), partial_rotary_factor=0.75) | _BEYOND | _TIED | {"sliding_window": LENGTH},
    ),
    "smollm2": Family(vocabularies.smollm_2, "llama", ("<|im_end|>",), 49152, _rope(100000.0) | _TIED | _WIDE),
    "smollm3": Family(
        vocabularies.smollm_3,
        "smollm3",
        ("<|im_end|>",),
        128256,
        _rope(5000000.0) | _TIED | {"num_hidden_layers": 4},  # of which the last has no positions
    ),
    "deepseek": Family(  # as its distilled models are
        vocabularies.deepseek,
        "llama",
        ("<｜end▁of▁sentence｜>",),  # noqa: RUF001
        129280,
        _rope(10000.0) | _UNTIED,
    ),
    "gpt-oss": Family(
        vocabularies.gpt_oss,
        "gpt_oss",
        ("<|return|>", "<|endoftext|>", "<|call|>"),
        201088,
        _rope(150000.0, **_YARN, **_BEYOND, truncate=False)
        | _UNTIED
        | {"head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW},
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
