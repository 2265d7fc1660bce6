"""Tiny models of several architectures with random weights and the starter's tokenizer."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2MoeConfig,
    Qwen3Config,
)

STARTER = Path(__file__).parents[2] / "starter/models/starter-s"
SHAPE: dict[str, Any] = {
    "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 5,
    "pad_token_id": 2,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "untied": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "phi3": Phi3Config(**{key: value for key, value in SHAPE.items() if key != "head_dim"}),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma3": Gemma3TextConfig(**SHAPE, sliding_window=16),
    "gpt_oss": GptOssConfig(**SHAPE, **EXPERTS, sliding_window=16),
    "qwen2_moe": Qwen2MoeConfig(
        **SHAPE, num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=64, decoder_sparse_step=1
    ),
}


def made(family: str, folder: Path) -> Path:
    """A model's folder, as the hub has them."""
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(folder)
    copied_tokenizer(folder)
    return folder


def copied_tokenizer(folder: Path) -> None:
    """The starter's, put beside a model."""
    for path in STARTER.iterdir():
        if path.name not in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copy(path, folder)


def changed(folder: Path, file: str, **values: Any) -> None:
    """Sets keys of a JSON file in a model's folder."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
