"""A GGUF's loss through llama.cpp agrees with Transformers' on the same tokens."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import UserError
from pipeline.evaluation.loss import measure_loss
from pipeline.gguf.score import CHUNK, loss, tokens_per_second
from pipeline.training.chat import encode

CHATS = Path(__file__).parents[3] / "starter/chats.jsonl"
Rows = list[tuple[list[int], list[int]]]


@pytest.fixture(scope="module")
def rows(starter: Path) -> Rows:
    """Conversations of several lengths, one of them longer than what is decoded at once."""
    tokenizer = AutoTokenizer.from_pretrained(starter)
    lines = CHATS.read_text(encoding="utf-8").splitlines()[:12]
    chats = [json.loads(line)["messages"] for line in lines]
    chats.append([message for chat in chats for message in chat if message["role"] != "system"])
    encoded = [encode(tokenizer, chat, 1024) for chat in chats]
    assert max(len(ids) for ids, _ in encoded) > 2 * CHUNK
    return encoded


@pytest.fixture(scope="module")
def expected(starter: Path, rows: Rows) -> float:
    model = AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32)
    return measure_loss(model, rows, 4, 2)[0]


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-3), ("F16", 1e-3), ("Q8_0", 1e-2), ("Q4_K_M", 0.3)])
def test_the_loss_agrees_with_transformers(
    ggufs: dict[str, Path], rows: Rows, expected: float, kind: str, tolerance: float
) -> None:
    assert loss(ggufs[kind], rows) == pytest.approx(expected, abs=tolerance)


def test_marked_tokens_alone_count_and_the_first_never_does(ggufs: dict[str, Path], rows: Rows) -> None:
    ids, _ = rows[0]
    only_last = [0] * (len(ids) - 1) + [1]
    first_too = [1, *only_last[1:]]
    nothing = [0] * len(ids)
    assert loss(ggufs["F32"], [(ids, only_last)]) == loss(ggufs["F32"], [(ids, first_too), (ids, nothing)])


def test_the_order_of_conversations_does_not_count(ggufs: dict[str, Path], rows: Rows) -> None:
    assert loss(ggufs["F32"], rows) == pytest.approx(loss(ggufs["F32"], rows[::-1]), abs=1e-6)


def test_answers_are_timed(ggufs: dict[str, Path]) -> None:
    assert tokens_per_second(ggufs["Q8_0"], ["What is 5 + 6?", "Hello!"], 4) > 0
    assert tokens_per_second(ggufs["Q8_0"], [], 4) == 0.0


@pytest.mark.parametrize("content", ["cut", "empty", "no gguf", "missing"])
def test_a_file_that_is_no_whole_gguf_is_refused_in_one_line(
    ggufs: dict[str, Path], rows: Rows, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "file.gguf"
    if content != "missing":
        whole = ggufs["F16"].read_bytes()
        file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "no gguf": b"text\n" * 1000}[content])
    with pytest.raises(UserError, match=r"file\.gguf \(\d+ bytes\) is no whole GGUF model: ") as raised:
        loss(file, rows)
    assert "\n" not in str(raised.value)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused_in_one_line(ggufs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"cannot answer one of evaluate\.prompts: The conversation takes") as raised:
        tokens_per_second(ggufs["Q8_0"], ["Hello!", "again " * 2000], 4)
    assert "\n" not in str(raised.value)


def test_a_cut_file_is_refused_in_one_line_when_it_is_timed(ggufs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(ggufs["F16"].read_bytes()[:3_000_000])
    with pytest.raises(UserError, match=r"cut\.gguf \(3000000 bytes\) is no whole GGUF model: "):
        tokens_per_second(tmp_path / "cut.gguf", ["Hello!"], 4)
