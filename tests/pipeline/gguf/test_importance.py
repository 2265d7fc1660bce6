"""The importance matrix is what goes into the weights, and quantizing by it loses less where it matters."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer

from common.files import sha256
from llama.context import CHUNK
from pipeline.gguf.importance import importance
from pipeline.gguf.quantize import quantize
from pipeline.gguf.reference import trained_model, write_logits
from pipeline.gguf.verify import compare
from pipeline.models.chat import encode
from pipeline.models.loading import load_base


@pytest.fixture(scope="module")
def rows(starter: Path, tuned: Path) -> list[list[int]]:
    chats = pq.read_table(tuned / "data/prepared/train.parquet")["messages"].to_pylist()
    tokenizer = AutoTokenizer.from_pretrained(starter)
    return [encode(tokenizer, chat, CHUNK)[0][0] for chat in chats[:24]]


@torch.inference_mode()
def test_it_is_the_mean_square_of_each_input(ggufs: dict[str, Path], rows: list[list[int]], starter: Path) -> None:
    model: Any = load_base(str(starter), None, "cpu", torch.float32)
    last = model.config.num_hidden_layers - 1
    parts = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "ffn_down": "mlp.down_proj"}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in parts}
    for name, part in parts.items():
        linear = model.model.layers[last].get_submodule(part)
        linear.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(given[0][0]))
    for row in rows:
        model(torch.tensor([row]))
    matrix = importance(ggufs["F32"], rows)
    assert len(matrix) == 7 * (last + 1)
    for name, inputs in seen.items():
        expected = torch.cat(inputs).square().mean(0).numpy()
        np.testing.assert_allclose(matrix[f"blk.{last}.{name}.weight"], expected, rtol=0.02, atol=1e-4)


def test_two_bits_by_it_are_nearer_to_the_unquantized_file(
    ggufs: dict[str, Path], rows: list[list[int]], starter: Path, tmp_path: Path
) -> None:
    logits = np.empty((sum(len(row) - 1 for row in rows), 2048), dtype=np.float32)
    write_logits(trained_model(str(starter), None, None, "cpu"), rows, "cpu", logits)
    quantize(ggufs["F16"], tmp_path / "plain.gguf", "Q2_K")
    quantize(ggufs["F16"], tmp_path / "weighed.gguf", "Q2_K", importance(ggufs["F16"], rows))
    assert sha256(tmp_path / "plain.gguf") != sha256(tmp_path / "weighed.gguf")
    assert (tmp_path / "plain.gguf").stat().st_size == (tmp_path / "weighed.gguf").stat().st_size
    plain, weighed = (compare(tmp_path / f"{name}.gguf", rows, logits) for name in ("plain", "weighed"))
    assert weighed.kl < plain.kl
