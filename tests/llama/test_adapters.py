"""Adapters over one base: what each says in company is what it says alone, and what llama.cpp's own way says."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from loras import write_lora
from tiny_gguf import write_random

from common.errors import UserError
from llama.adapters import SPARE, Adapters
from llama.batch import Batch
from llama.context import Context
from llama.errors import EngineError
from llama.ggml import Tensor
from llama.memory import check_free
from llama.model import Entry, LlamaModel
from llama.turn import Piece, Turn
from llama.types import Sampling
from pipeline.gguf.quantize import quantize

CONTEXT, SLOTS = 512, 4


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in Q8_0, in which a base's own answers are the same alone and in company."""
    folder = tmp_path_factory.mktemp("base")
    quantize(write_random(folder / "F32.gguf", width=256), folder / "Q8_0.gguf", "Q8_0")
    return folder / "Q8_0.gguf"


@pytest.fixture(scope="module")
def files(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two of one family, and others of other ranks, types and projections, one of them without an alpha."""
    folder = tmp_path_factory.mktemp("loras")
    return {
        "one": write_lora(folder / "one.gguf", base, 1),
        "two": write_lora(folder / "two.gguf", base, 2, alpha=16),
        "small": write_lora(folder / "small.gguf", base, 3, rank=4, alpha=12),
        "wide": write_lora(folder / "wide.gguf", base, 4, rank=72, alpha=0, kind="F32", only="attn"),
        "eight": write_lora(folder / "eight.gguf", base, 5, kind="Q8_0"),  # of its factors one is F16
        "eights": write_lora(folder / "eights.gguf", base, 6, rank=32, kind="Q8_0"),
        "brain": write_lora(folder / "brain.gguf", base, 7, kind="BF16"),
    }


@contextmanager
def batch(base: Path, files: dict[str, Path], slots: int = SLOTS) -> Iterator[Batch]:
    batch = Batch(LlamaModel(base, CONTEXT, 2, slots, adapters=Adapters(files)), 1 << 30)
    try:
        yield batch
    finally:
        batch.close()


def asked(batch: Batch, name: str, text: str, length: int) -> Turn:
    """A question to an adapter, or to the base; `heard` holds what it is answered."""
    heard: list[Piece] = []
    turn = Turn(name, [{"role": "user", "content": text}], Sampling(length, temperature=0), heard.append)  # type: ignore[arg-type]
    turn.heard = heard  # type: ignore[attr-defined]
    turn.prepare(batch.model, drop_oldest=False)
    return turn


def answer(turn: Turn) -> str:
    return "".join(piece.text for piece in turn.heard)  # type: ignore[attr-defined]


def test_answers_of_unlike_adapters_in_company_are_those_given_alone(base: Path, files: dict[str, Path]) -> None:
    draw = random.Random(1)
    questions = [
        (name, "why rain " * draw.choice([0, 1, 9, 30]) + "?", draw.choice([3, 12, 30]))
        for name in (*files, "base", *files, "base")
    ]
    alone = []
    with batch(base, files, slots=1) as one:
        for question in questions:
            turn = asked(one, *question)
            one.run(turn)
            alone.append(answer(turn))
    with batch(base, files) as all_at_once:
        turns = [asked(all_at_once, *question) for question in questions]
        assert len(list(all_at_once.run_all(turns))) == len(turns)
        assert [answer(turn) for turn in turns] == alone
    assert len({answer[:8] for answer in alone}) >= len(files)  # each says something of its own


def test_what_was_read_through_one_adapter_is_not_known_to_another(base: Path, files: dict[str, Path]) -> None:
    with batch(base, files, slots=2) as at_once:
        cached = []
        for name in ("one", "two", "base", "one", "small", "wide", "two"):  # the first ones leave their slots meanwhile
            turn = asked(at_once, name, "tell me of the rain", 3)
            at_once.run(turn)
            cached.append(turn.cached)
        assert cached[:3] == [0, 0, 0]
        assert cached[4:6] == [0, 0]
        assert cached[3] == cached[6] == len(turn.prompt) - 2


def logits(model: LlamaModel, name: str | None, ids: list[int], size: int) -> np.ndarray:
    """After the last of some tokens, read in pieces of a size."""
    model.forget(0)
    adapter = model.adapter(name) if name else None
    for start in range(0, len(ids), size):
        piece = ids[start : start + size]
        end, of = len(ids) - 1, (adapter, size > 1)
        model.decode([Entry(t, start + i, 0, start + i == end, *of) for i, t in enumerate(piece)])
    return model.logits(len(piece) - 1).copy()


def test_what_is_computed_is_what_llama_cpp_computes_of_one_adapter(base: Path, files: dict[str, Path]) -> None:
    ids = [random.Random(2).randrange(256) for _ in range(42)]
    with LlamaModel(base, CONTEXT, 2, adapters=Adapters(files)) as model:
        noise = max(self_difference(base, model, None, ids), 1e-3)  # attention adds up otherwise there
        for name in files:
            assert self_difference(base, model, name, ids, files[name]) < 2 * noise
            assert np.abs(logits(model, name, ids, 42) - logits(model, None, ids, 42)).max() > 20 * noise
            assert np.array_equal(logits(model, name, ids, 42), logits(model, name, ids, 2))  # in pieces of any size
            one_by_one = logits(model, name, ids, 1)
            assert np.abs(one_by_one - logits(model, name, ids, 42)).max() < 2 * noise


def self_difference(base: Path, model: LlamaModel, name: str | None, ids: list[int], file: Path | None = None) -> float:
    with Context(base, CONTEXT, adapter=file) as context:
        ((_, theirs),) = context.logits(ids, [len(ids) - 1])
        return float(np.abs(theirs[0] - logits(model, name, ids, len(ids))).max())


def test_tokens_that_llama_cpp_would_not_compute_at_once_are_no_decode(base: Path, files: dict[str, Path]) -> None:
    with LlamaModel(base, CONTEXT, 2, SLOTS, adapters=Adapters(files)) as model:
        for slots in ((0, 2), (0, 0, 1), (1, 0)):
            with pytest.raises(EngineError, match="tokens of slots apart, or more of one than of another"):
                model.decode([Entry(1, 0, slot, True) for slot in slots])


def test_a_base_whose_adapters_nobody_asks_for_is_computed_without_them(base: Path, files: dict[str, Path]) -> None:
    ids = [random.Random(3).randrange(256) for _ in range(9)]
    with LlamaModel(base, CONTEXT, 2) as plain:
        expected = logits(plain, None, ids, 9)
    adapters = Adapters(files)
    with LlamaModel(base, CONTEXT, 2, adapters=adapters) as model:
        assert np.array_equal(logits(model, None, ids, 9), expected)
        logits(model, "one", ids, 9)
        assert adapters.laid == ["one", "two"]
        assert np.array_equal(logits(model, None, ids, 9), expected)  # with zeros for its tokens
        for _ in range(SPARE // 9 + 1):
            logits(model, None, ids, 1)
        assert adapters.laid == []
        assert np.array_equal(logits(model, None, ids, 9), expected)


def test_a_file_that_is_not_what_it_was_is_told_and_the_others_go_on(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    ids = [1, 2, 3]
    changed, cut = (write_lora(tmp_path / f"{name}.gguf", base, 5) for name in ("changed", "cut"))
    with LlamaModel(base, CONTEXT, 2, adapters=Adapters({**files, "changed": changed, "cut": cut})) as model:
        write_lora(changed, base, 5, rank=8)
        cut.write_bytes(cut.read_bytes()[:-500])
        with pytest.raises(UserError, match=r"changed\.gguf is not the file that it was when the server started"):
            model.adapter("changed")
        with pytest.raises(UserError, match=r"cut\.gguf .* ends before its last tensor does"):
            model.adapter("cut")
        assert logits(model, "one", ids, 3).any()
    with LlamaModel(base, CONTEXT, 2, adapters=Adapters({**files, "cut": cut})) as model:
        with pytest.raises(UserError, match=r"cut\.gguf .* ends before its last tensor does"):
            model.adapter("cut")
        assert logits(model, "one", ids, 3).any()


def test_adapters_of_which_a_graph_leaves_something_out_are_refused_from_then_on(
    base: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite = Adapters._rewrite

    def all_but_one(adapters: Adapters, scale: Tensor) -> None:  # as if llama.cpp computed that without adapters
        factor = Tensor.from_address(Tensor.from_address(scale.src[0]).src[0])
        if not factor.name.startswith(b"blk.0.attn_q."):
            rewrite(adapters, scale)

    monkeypatch.setattr(Adapters, "_rewrite", all_but_one)
    with LlamaModel(base, CONTEXT, 2, adapters=Adapters({"one": files["one"], "two": files["two"]})) as model:
        with pytest.raises(EngineError, match="tensors with adapters 13 were computed"):
            logits(model, "one", [1, 2, 3], 3)
        for name in ("one", "two"):
            with pytest.raises(
                UserError, match=rf"{name}\.gguf adds to blk\.0\.attn_q\.weight, which llama\.cpp computes"
            ):
                model.adapter(name)


def test_an_adapter_that_memory_does_not_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable:   20000 kB\n")
    check_free("small", 20_000_000, tmp_path)
    with pytest.raises(UserError, match=r"large takes 0\.1 GB of memory and 0\.0 GB are free: lower SERVE_"):
        check_free("large", 100_000_000, tmp_path)
