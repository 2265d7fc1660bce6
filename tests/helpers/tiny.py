"""Tiny models of any architecture with random weights in which positions matter, and the tokenizer of starter-s."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
SIZES: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 5,
    "pad_token_id": 2,
}


def write_model(starter: Path, folder: Path, config: Any) -> Path:
    """A model of a configuration in a folder of its own."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:  # attention that looks at some tokens more than at others
                weight.normal_(std=weight.shape[-1] ** -0.5 * (2 if "q_proj" in name or "k_proj" in name else 1))
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copyfile(starter / name, folder / name)
    if config.model_type == "phi3":  # for which the converter otherwise wants a SentencePiece model
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(settings | {"tokenizer_class": "GPT2Tokenizer"}), encoding="utf-8")
    return folder
