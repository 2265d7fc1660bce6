"""The adapter alone, laid on the base by llama.cpp, says what the trained model says."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import trained
from gguf import GGUFReader
from transformers import PreTrainedModel

from common.errors import UserError
from llama.adapters import Adapters
from llama.batch import Batch
from llama.model import LlamaModel, Scored
from llama.source import llama_cpp_tree
from llama.turn import Turn
from llama.types import Sampling
from pipeline.gguf.adapter import write_adapter
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.verify import check_divergence, compare

ANSWER = 16  # tokens
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


def test_adapters_served_over_one_base_answer_as_peft_does(
    ggufs: dict[str, Path], starter: Path, tmp_path: Path
) -> None:
    """One by the export, and one by llama.cpp's own converter as it is."""
    files = {}
    for name, seed in (("ours", 1), ("theirs", 2)):
        adapter = trained(starter, tmp_path / name, seed=seed)
        files[name] = tmp_path / f"{name}.gguf"
        if name == "ours":
            write_adapter(adapter, starter, files[name], tmp_path)
        else:
            script = [sys.executable, llama_cpp_tree() / "convert_lora_to_gguf.py", "--base", starter]
            subprocess.run([*script, "--outfile", files[name], adapter], check=True, capture_output=True)
    folders = {"base": None, "ours": tmp_path / "ours", "theirs": tmp_path / "theirs"}
    sampling, drawn = Sampling(ANSWER, temperature=0, ignore_eos=True), dict[str, list[int]]()
    with closing(Batch(LlamaModel(ggufs["F32"], 128, 1, 4, adapters=Adapters(files)))) as batch:
        turns = [Turn(name, "", sampling, lambda _: None) for name in folders]
        for turn in turns:
            turn.go_on_from(ROWS[0], batch.model)
            drawn[turn.model] = note(turn)
        list(batch.run_all(turns))
        ends = list(batch.model.ends)
    for name, folder in folders.items():
        assert drawn[name] == greedy(trained_model(str(starter), None, folder, "cpu"), ROWS[0], ends)
    assert len({tuple(said) for said in drawn.values()}) == len(folders)


def greedy(model: PreTrainedModel, ids: list[int], ends: list[int]) -> list[int]:
    """The likeliest ANSWER tokens after some that do not end the turn."""
    said: list[int] = []
    with torch.no_grad():
        for _ in range(ANSWER):
            logits = model(torch.tensor([ids + said])).logits[0, -1]
            logits[ends] = -torch.inf
            said.append(int(logits.argmax()))
    return said


def note(turn: Turn) -> list[int]:
    """What is drawn for a turn, as it comes."""
    drawn, take = list[int](), turn.take

    def noted(token: int, model: LlamaModel, scored: Scored | None = None) -> None:
        drawn.append(token)
        take(token, model, scored)

    turn.take = noted  # type: ignore[method-assign]
    return drawn
