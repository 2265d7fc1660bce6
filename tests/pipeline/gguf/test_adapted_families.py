"""Adapters of every kind on tiny models of several architectures: merged, they say what they say unmerged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import made
from peft import PeftModel
from transformers import AutoTokenizer

from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.gguf.merge import merge
from pipeline.gguf.positions import round_ramp
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.models.loading import load_base
from pipeline.training.engines.trl import with_adapter

REPO = Path(__file__).parents[3]
ROWS = [[0, 3, 983, 4, 433, 39, 74, 318], list(range(100))]
WHOLE = ["train.lora.modules_to_save=[embed_tokens, norm]"]


def adapter_on(base: Path, config: Config, folder: Path) -> Path:
    """What a training could have made: random numbers in all that learns."""
    torch.manual_seed(1)
    adapted = with_adapter(load_base(str(base), None, "cpu", torch.float32), config.train.lora)
    for name, weight in adapted.named_parameters():
        if weight.requires_grad and "magnitude" not in name:
            weight.data += torch.randn_like(weight) * (0.02 if "modules_to_save" in name else 0.1)
    adapted.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Any:
    model = load_base(str(folder), None, "cpu", torch.float32)
    round_ramp(model)
    return model


def logits(model: Any) -> torch.Tensor:
    found = np.empty((sum(len(row) - 1 for row in ROWS), 2048), dtype=np.float32)
    write_logits(model, ROWS, "cpu", found)
    return torch.from_numpy(found)


def nats(one: torch.Tensor, other: torch.Tensor) -> float:
    """The mean KL divergence."""
    p, q = one.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", []),
        ("llama", WHOLE),
        ("llama", ["train.lora.modules_to_save=[lm_head]"]),
        ("untied", ["train.lora.modules_to_save=[lm_head, embed_tokens]"]),
        ("untied", ["train.lora.target_modules=[q_proj, embed_tokens, lm_head]"]),
        ("phi3", []),
        ("phi3", ["train.lora.dora=true"]),
        ("qwen3", ["train.lora.rslora=true"]),
        ("gemma3", WHOLE),
        ("gpt_oss", []),
        ("qwen2_moe", []),
    ],
)
def test_merged_and_unmerged_say_the_same(family: str, overrides: list[str], tmp_path: Path) -> None:
    base = made(family, tmp_path / "base")
    settings = ["model=llama-3.2-1b", f"model.path={base}", "train.lora.r=4", "train.lora.alpha=8"]
    config = load(compose(REPO / "conf", [*settings, *overrides]))
    adapter = adapter_on(base, config, tmp_path / "adapter")
    expected = logits(PeftModel.from_pretrained(loaded(base), str(adapter)).eval())
    assert nats(expected, logits(loaded(base))) > 0.003  # the base alone
    torch.testing.assert_close(logits(trained_model(str(base), None, adapter, "cpu")), expected, rtol=0, atol=1e-4)
    merge(replace(config.model, name="tuned"), adapter, tmp_path / "tuned")
    assert nats(expected, logits(loaded(tmp_path / "tuned"))) < 1e-3
