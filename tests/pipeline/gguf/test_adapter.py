"""The adapter alone, laid on the base by llama.cpp, says what the trained model says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import trained
from gguf import GGUFReader

from common.errors import UserError
from pipeline.gguf.adapter import write_adapter
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.verify import check_divergence, compare

ROWS = [[0, 3, 983, 4, 433, 39, 74, 318], list(range(100))]


@pytest.mark.parametrize(
    "lora", [{}, {"use_rslora": True}, {"alpha_pattern": {"up_proj": 1}, "rank_pattern": {"q_proj": 2}}]
)
def test_base_and_adapter_say_what_was_trained(
    ggufs: dict[str, Path], starter: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    adapter = trained(starter, tmp_path / "peft", **lora)
    write_adapter(adapter, starter, tmp_path / "adapter.gguf", tmp_path)
    assert GGUFReader(tmp_path / "adapter.gguf").fields["general.type"].contents() == "adapter"
    logits = np.empty((sum(len(row) - 1 for row in ROWS), 2048), dtype=np.float32)
    write_logits(trained_model(str(starter), None, adapter, "cpu"), ROWS, "cpu", logits)
    check_divergence(tmp_path / "adapter.gguf", compare(ggufs["F16"], ROWS, logits, adapter=tmp_path / "adapter.gguf"))
    assert compare(ggufs["F16"], ROWS, logits).kl > 0.02  # the base alone


def test_what_is_no_adapter_is_refused_in_one_line(ggufs: dict[str, Path]) -> None:
    logits = np.zeros((sum(len(row) - 1 for row in ROWS), 2048), dtype=np.float32)
    with pytest.raises(UserError, match=r"^starter-s-Q8_0\.gguf is no adapter for this model: .") as raised:
        compare(ggufs["F16"], ROWS, logits, adapter=ggufs["Q8_0"])
    assert "\n" not in str(raised.value)


def test_what_llama_cpp_cannot_lay_on_is_refused_in_one_line(starter: Path, tmp_path: Path) -> None:
    adapter = trained(starter, tmp_path / "peft", use_dora=True)
    with pytest.raises(UserError, match=r"no such adapter alone \(the adapter has use_dora\); set export\.adapter"):
        write_adapter(adapter, starter, tmp_path / "adapter.gguf", tmp_path)
