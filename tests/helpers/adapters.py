"""Adapters of random weights, of any kind that PEFT has."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from pipeline.models.loading import load_base


def trained(starter: Path, folder: Path, seed: int = 1, **lora: Any) -> Path:
    """An adapter of random weights on starter-s, with the tokenizer."""
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "up_proj"], **lora})
    model = get_peft_model(load_base(str(starter), None, "cpu", torch.float32), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(starter).save_pretrained(folder)
    return folder
