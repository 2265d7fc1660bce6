"""A GGUF's loss through llama.cpp agrees with Transformers' on the same tokens, and so does what it answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from llama.context import CHUNK
from llama.model import LlamaModel
from pipeline.evaluation.answers import answer_all, answer_timed
from pipeline.evaluation.gguf_scores import (
    CONTEXT,
    SERVED,
    SLOTS,
    answer_alone,
    answer_together,
    end_tokens,
    row_nats,
    serving_memory,
)
from pipeline.evaluation.loss import measure_loss, scored_tokens
from pipeline.models.chat import encode
from serve.settings import Settings

CHATS = Path(__file__).parents[3] / "starter/chats.jsonl"
Rows = list[tuple[list[int], list[int]]]


@pytest.fixture(scope="module")
def rows(starter: Path) -> Rows:
    """Conversations of several lengths, one of them longer than what is decoded at once."""
    tokenizer = AutoTokenizer.from_pretrained(starter)
    lines = CHATS.read_text(encoding="utf-8").splitlines()[:12]
    chats = [json.loads(line)["messages"] for line in lines]
    chats.append([message for chat in chats for message in chat if message["role"] != "system"])
    encoded = [encode(tokenizer, chat, 1024)[0] for chat in chats]
    assert max(len(ids) for ids, _ in encoded) > 2 * CHUNK
    return encoded


@pytest.fixture(scope="module")
def expected(starter: Path, rows: Rows) -> list[float]:
    model = AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32)
    return measure_loss(model, rows, 4, 2).nats


@pytest.mark.parametrize(("kind", "tolerance"), [("F32", 1e-3), ("F16", 1e-3), ("Q8_0", 1e-2), ("Q4_K_M", 0.3)])
def test_the_loss_agrees_with_transformers(
    ggufs: dict[str, Path], rows: Rows, expected: list[float], kind: str, tolerance: float
) -> None:
    tokens = sum(map(scored_tokens, rows))
    found = row_nats(ggufs[kind], rows)
    assert sum(found) / tokens == pytest.approx(sum(expected) / tokens, abs=tolerance)
    if kind == "F32":
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_K_M"])
def test_the_memory_of_a_file_is_what_its_engine_takes_at_the_servers_own_settings(
    ggufs: dict[str, Path], kind: str
) -> None:
    assert (Settings().context, Settings().slots) == (CONTEXT, SERVED)
    with LlamaModel(ggufs[kind], CONTEXT, 1, SERVED) as model:
        served = model.memory
    assert serving_memory(ggufs[kind]) == pytest.approx(served.total(SERVED), abs=SERVED * 10_486)  # of 10 KiB each
    assert served.weights == pytest.approx(ggufs[kind].stat().st_size, rel=0.1)  # less vocabulary and metadata


def test_marked_tokens_alone_count_and_the_first_never_does(ggufs: dict[str, Path], rows: Rows) -> None:
    ids, _ = rows[0]
    only_last = [0] * (len(ids) - 1) + [1]
    first_too = [1, *only_last[1:]]
    nothing = [0] * len(ids)
    nats = row_nats(ggufs["F32"], [(ids, only_last), (ids, first_too), (ids, nothing)])
    assert nats == [nats[0], nats[0], 0]
    assert nats[0] > 0


def test_the_order_of_conversations_does_not_count(ggufs: dict[str, Path], rows: Rows) -> None:
    backwards = row_nats(ggufs["F32"], rows[::-1])
    assert row_nats(ggufs["F32"], rows) == pytest.approx(backwards[::-1], abs=1e-5)


PROMPTS = ["What is 5 + 6?", "Hello!", "Spell cat.", "What is the capital of France?", "Name a colour, any colour."]


def test_answers_of_many_at_once_are_those_given_alone(ggufs: dict[str, Path]) -> None:
    prompts = [f"{prompt} {number}" for number in range(SLOTS) for prompt in PROMPTS]
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    together = answer_together(ggufs["Q8_0"], chats, 8, context=64)
    alone = answer_alone(ggufs["Q8_0"], prompts, 8)
    assert together == [{"reply": one["reply"], "tokens": one["tokens"]} for one in alone]
    assert len({one["reply"] for one in alone}) > 5


def test_answers_are_those_of_transformers(ggufs: dict[str, Path], starter: Path) -> None:
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    model = AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32).eval()
    expected = answer_all(model, AutoTokenizer.from_pretrained(starter), chats, 8, 4)
    assert answer_together(ggufs["F32"], chats, 8, context=64) == expected


# What a folder's generation_config.json may ask of `generate` beside the likeliest tokens.
WAYWARD: dict[str, Any] = {
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "min_length": 30,
    "min_new_tokens": 12,
    "suppress_tokens": list(range(16, 90)),
    "num_beams": 2,
}


@pytest.mark.parametrize("wayward", [{key: value} for key, value in WAYWARD.items()] + [WAYWARD])
def test_what_a_models_own_settings_ask_for_changes_no_greedy_answer(
    ggufs: dict[str, Path], starter: Path, wayward: dict[str, Any]
) -> None:
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    tokenizer = AutoTokenizer.from_pretrained(starter)
    model = AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32).eval()
    model.generation_config.update(**wayward)
    own = model.generation_config.to_dict()
    of_file = answer_together(ggufs["F16"], chats, 16, context=64)
    assert [said_by_itself(model, tokenizer, chat) for chat in chats] != [one["reply"] for one in of_file]
    assert answer_all(model, tokenizer, chats, 16, 4) == of_file
    timed = answer_timed(model, tokenizer, PROMPTS, 16)
    assert [one["reply"] for one in timed] == [one["reply"] for one in of_file]
    assert model.generation_config.to_dict() == own


def said_by_itself(model: Any, tokenizer: Any, chat: list[dict[str, str]]) -> str:
    """What `generate` says by the model's own settings."""
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=16, do_sample=False)
    return str(tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def test_an_answer_ends_where_the_files_would_and_where_the_tokenizer_says(
    ggufs: dict[str, Path], starter: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(starter)
    model = AutoModelForCausalLM.from_pretrained(starter, dtype=torch.float32).eval()
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    ends = end_tokens(ggufs["F16"])
    assert {tokenizer.convert_ids_to_tokens(end) for end in ends} >= {"<|eot_id|>", "<|end_of_text|>"}
    whole = answer_all(model, tokenizer, chats, 16, 4)
    model.generation_config.eos_token_id = None  # as in a folder without a generation_config.json
    assert answer_all(model, tokenizer, chats, 16, 4, ends) == whole
    word = tokenizer(" begins", add_special_tokens=False)["input_ids"][0]
    cut = answer_all(model, tokenizer, chats, 16, 4, [*ends, word])
    assert [one["reply"] for one in cut] == [one["reply"].split(" begins")[0] for one in whole]
    assert cut != whole


def test_answers_are_timed(ggufs: dict[str, Path]) -> None:
    for answer in answer_alone(ggufs["Q8_0"], PROMPTS[:2], 4):
        assert 0 < answer["first_token_seconds"] <= answer["seconds"]
        assert (answer["tokens_per_second"] > 0) == (answer["tokens"] > 1)
    assert answer_alone(ggufs["Q8_0"], [], 4) == []
    assert answer_together(ggufs["Q8_0"], [], 4, context=64) == []


@pytest.mark.parametrize("content", ["cut", "empty", "no gguf", "missing"])
def test_a_file_that_is_no_whole_gguf_is_refused_in_one_line(
    ggufs: dict[str, Path], rows: Rows, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "file.gguf"
    if content != "missing":
        whole = ggufs["F16"].read_bytes()
        file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "no gguf": b"text\n" * 1000}[content])
    with pytest.raises(UserError, match=r"file\.gguf \(\d+ bytes\) is no whole GGUF model: ") as raised:
        row_nats(file, rows)
    assert "\n" not in str(raised.value)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused_in_one_line(ggufs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"cannot be asked 'again again [^']*': The conversation takes") as raised:
        answer_alone(ggufs["Q8_0"], ["Hello!", "again " * 2000], 4)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "ask", [lambda path: answer_alone(path, ["Hello!"], 4), lambda path: answer_together(path, [], 4, 64)]
)
def test_a_cut_file_is_refused_in_one_line_when_it_is_asked(ggufs: dict[str, Path], tmp_path: Path, ask: Any) -> None:
    (tmp_path / "cut.gguf").write_bytes(ggufs["F16"].read_bytes()[:3_000_000])
    with pytest.raises(UserError, match=r"cut\.gguf \(3000000 bytes\) is no whole GGUF model: "):
        ask(tmp_path / "cut.gguf")
