"""Logits of the trained model with its weights on disk are those of the same model in memory."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from common.errors import UserError
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.models.loading import load_base

ROWS = [[0, 3, 50, 60, 70], [0, 9], list(range(100)), [0, 1, 2], [7, 8, 9, 10, 11, 12]]


def logits_of(model: object) -> np.ndarray:
    out = np.full((sum(len(row) - 1 for row in ROWS), 2048), np.nan, dtype=np.float32)
    write_logits(model, ROWS, "cpu", out)
    return out


def test_they_are_pefts_with_the_adapter_unmerged(starter: Path, tuned: Path) -> None:
    adapter = tuned / "models/adapter"
    streamed = trained_model(str(starter), None, adapter, "cpu")
    assert all(parameter.is_meta for parameter in streamed.parameters())
    model = PeftModel.from_pretrained(load_base(str(starter), None, "cpu", torch.float32), str(adapter)).eval()
    np.testing.assert_allclose(logits_of(streamed), logits_of(model), atol=1e-4)
    assert all(parameter.is_meta for parameter in streamed.parameters())


def test_each_row_has_the_logits_that_it_has_alone(starter: Path) -> None:
    streamed = trained_model(str(starter), None, None, "cpu")
    together = logits_of(streamed)
    done = 0
    with torch.inference_mode():
        for row in ROWS:
            alone = load_base(str(starter), None, "cpu", torch.float32)(torch.tensor([row])).logits[0, :-1]
            np.testing.assert_allclose(together[done : done + len(row) - 1], alone.numpy(), atol=1e-4)
            done += len(row) - 1


def test_what_cannot_stay_on_disk_is_held_in_memory_and_said(
    starter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)
    model = get_peft_model(load_base(str(starter), None, "cpu", torch.float32), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    found = logits_of(trained_model(str(starter), None, tmp_path / "adapter", "cpu"))
    assert "checking with the whole model in memory: the adapter has use_dora" in capsys.readouterr().out
    np.testing.assert_allclose(found, logits_of(model.eval()), atol=1e-4)


@pytest.mark.parametrize(("factor", "within"), [(1.0, True), (1e8, False), (float("nan"), False)])
def test_what_16_bits_do_not_hold_is_noticed(starter: Path, factor: float, within: bool) -> None:
    model = load_base(str(starter), None, "cpu", torch.float32)
    model.get_input_embeddings().weight.data *= factor
    out = np.empty((sum(len(row) - 1 for row in ROWS), 2048), dtype=np.float32)
    assert write_logits(model, ROWS, "cpu", out) is within


def test_cut_weights_are_refused_in_one_line(starter: Path, tmp_path: Path) -> None:
    base = shutil.copytree(starter, tmp_path / "base")
    (base / "model.safetensors").write_bytes((starter / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(UserError, match=r"base cannot be loaded \(") as raised:
        trained_model(str(base), None, None, "cpu")
    assert "\n" not in str(raised.value)
