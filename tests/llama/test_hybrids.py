"""Bases in which recurrent layers stand beside attention: adapters over one, in company as alone."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import SHAPE, changed, copied_tokenizer
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    GraniteMoeHybridConfig,
    Lfm2Config,
    PreTrainedConfig,
)

from llama.adapters import Adapters
from llama.batch import Batch
from llama.context import Context
from llama.model import Entry, LlamaModel
from llama.turn import Piece, Turn
from llama.types import Sampling
from pipeline.gguf.convert import convert, convert_adapter

CONTEXT, SLOTS = 512, 4
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_state": 16, "mamba_d_head": 32, "mamba_n_groups": 1}
BASES: dict[str, Callable[[], PreTrainedConfig]] = {
    "lfm2": lambda: Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    "granite": lambda: GraniteMoeHybridConfig(
        **SHAPE, **MAMBA, layer_types=["mamba", "attention"], num_local_experts=0, num_experts_per_tok=0,
        shared_intermediate_size=128,
    ),
}  # fmt: skip
SHORT = ("lfm2",)  # whose layers llama.cpp computes slot by slot, and not token by token
PROJECTIONS = r".*\.(\w*proj|w[123]|\w*_linear)"


@pytest.fixture(
    scope="module", params=[name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in BASES]
)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base of random weights and two adapters over it, as the converter writes them."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(BASES[request.param]())
    model.save_pretrained(folder / "base")
    copied_tokenizer(folder / "base")
    if request.param == "granite":  # by the names that its files on the hub have
        changed(folder / "base", "config.json", layer_types=["mamba", "attention"])
    convert(folder / "base", folder / "base.gguf", "F32")
    files = {"base": folder / "base.gguf"}
    for name, rank in (("one", 8), ("two", 8)):
        adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=16, target_modules=PROJECTIONS))
        for parameter, weight in adapted.named_parameters():
            if "lora_" in parameter:
                weight.data.normal_(std=0.2)
        adapted.save_pretrained(folder / name)
        model = adapted.unload()
        convert_adapter(folder / name, folder / "base", folder / f"{name}.gguf")
        files[name] = folder / f"{name}.gguf"
    return files


def asked(batch: Batch, name: str, text: str, length: int) -> tuple[Turn, list[Piece]]:
    heard: list[Piece] = []
    turn = Turn(name, [{"role": "user", "content": text}], Sampling(length, temperature=0), heard.append)  # type: ignore[arg-type]
    turn.prepare(batch.model, drop_oldest=False)
    return turn, heard


def test_two_adapters_at_once_answer_as_alone(files: dict[str, Path]) -> None:
    draw = random.Random(1)
    questions = [
        (name, "why rain " * draw.choice([0, 1, 9, 30]) + "?", draw.choice([3, 12, 30]))
        for name in ("one", "two", "base") * 3
    ]
    answers = []
    adapters = {name: path for name, path in files.items() if name != "base"}
    for slots in (1, SLOTS):
        batch = Batch(LlamaModel(files["base"], CONTEXT, 2, slots, adapters=Adapters(adapters)), 1 << 30)
        turns = [asked(batch, *question) for question in questions]
        assert len(list(batch.run_all([turn for turn, _ in turns]))) == len(turns)
        batch.close()
        answers.append(["".join(piece.text for piece in heard) for _, heard in turns])
    alone, in_company = answers
    assert in_company == alone
    assert len(set(alone)) > 6


def by_itself(base: Path, adapter: Path | None, ids: list[int]) -> np.ndarray:
    """The logits after some tokens as llama.cpp computes them with one adapter, or none."""
    with Context(base, CONTEXT, adapter=adapter) as context:
        ((_, logits),) = context.logits(ids, [len(ids) - 1])
        return logits[0].copy()


def test_each_adapter_is_computed_as_llama_cpp_computes_it_alone(files: dict[str, Path]) -> None:
    ids = [random.Random(2).randrange(3, 2000) for _ in range(42)]
    adapters = {name: path for name, path in files.items() if name != "base"}
    with LlamaModel(files["base"], CONTEXT, 2, adapters=Adapters(adapters)) as model:
        for name, path in adapters.items():
            model.forget(0)
            model.decode([Entry(t, i, 0, i == 41, model.adapter(name), True) for i, t in enumerate(ids)])
            ours, theirs = model.logits(41), by_itself(files["base"], path, ids)
            assert np.abs(ours - theirs).max() < 5e-3 < np.abs(ours - by_itself(files["base"], None, ids)).max() / 20
