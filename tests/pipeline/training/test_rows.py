"""Prepared chats as rows of tokens: what is learnt from, and what is cut."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerBase

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.models.chat import load_tokenizer
from pipeline.training.rows import supervised
from pipeline.training.updates import IGNORED

pytestmark = pytest.mark.usefixtures("project")
REPO = Path(__file__).parents[3]
STARTER = str(REPO / "starter/models/starter-s")


@pytest.fixture(scope="module")
def settings() -> Config:
    return load(compose(REPO / "conf", ["model=starter-s", f"model.path={STARTER}"]))


@pytest.fixture(scope="module")
def tokenizer(settings: Config) -> PreTrainedTokenizerBase:
    return load_tokenizer(settings.model)


def test_labels_stand_on_the_assistants_tokens_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = supervised("train", tokenizer, 512)
    assert len(rows) == 104
    for row in rows:
        learnt = [(i, label) for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORED]
        assert learnt
        assert all(i == label for i, label in learnt)
        text = str(tokenizer.decode(row["input_ids"]))
        said = re.findall(r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)", text, re.DOTALL)
        assert str(tokenizer.decode([i for i, _ in learnt])) == "".join(said)


def test_a_row_longer_than_max_length_is_cut_and_one_with_nothing_left_to_learn_is_left_out(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = (supervised("train", tokenizer, length) for length in (512, 24))
    assert max(map(len, whole["input_ids"])) > 24 == max(map(len, cut["input_ids"]))
    assert 0 < len(cut) < len(whole)
    assert all(any(label != IGNORED for label in labels) for labels in cut["labels"])
    longer = sum(len(ids) > 24 for ids in whole["input_ids"])
    said = f"train: 104 conversations, {longer} cut at 24 tokens, {104 - len(cut)} left out without a token of the"
    assert capsys.readouterr().out.splitlines()[-1] == f"{said} assistant"
    with pytest.raises(UserError, match=r"^no train row has an assistant token within train\.max_length 8; raise it$"):
        supervised("train", tokenizer, 8)


def put_rows(split: str, chats: list[list[dict[str, Any]]]) -> None:
    """Writes a prepared split that is not the project's."""
    Path("data/prepared").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"messages": chats}), f"data/prepared/{split}.parquet")


def test_control_tokens_in_words_are_counted(
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    forged = ["hi<|eot_id|>", "hi", "hi"]
    put_rows(
        "train", [[{"role": "user", "content": asked}, {"role": "assistant", "content": "Yes"}] for asked in forged]
    )
    assert len(supervised("train", tokenizer, 512)) == 3
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.endswith("of the assistant; 1 with control tokens in their words, which stay text")


@pytest.fixture
def changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PreTrainedTokenizerBase:
    """A template that writes `draft` before its last answer, and takes no system prompt; in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "changing.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system prompt.') }}{% endif %}"
        "{% for m in messages %}{{ m.role + ': ' }}"
        "{% if loop.last and m.role == 'assistant' %}{{ 'draft ' }}{% endif %}"
        "{{ m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    settings = load(compose(REPO / "conf", ["model=starter-s", f"model.path={STARTER}"])).model
    return load_tokenizer(replace(settings, chat_template="changing.jinja"))


def chat(*contents: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


def test_a_turn_that_the_next_one_changes_has_a_row_of_its_own(
    changing: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    put_rows("train", [chat("1?", "One.", "2?", "Two."), chat("3?", "Three.")])
    rows = supervised("train", changing, 512)
    assert [changing.decode(ids) for ids in rows["input_ids"]] == [
        "user: 1?<|eot_id|>assistant: draft One.<|eot_id|>",
        "user: 1?<|eot_id|>assistant: One.<|eot_id|>user: 2?<|eot_id|>assistant: draft Two.<|eot_id|>",
        "user: 3?<|eot_id|>assistant: draft Three.<|eot_id|>",
    ]
    learnt = [changing.decode([i for i in labels if i != IGNORED]) for labels in rows["labels"]]
    assert [text.strip() for text in learnt] == ["One.<|eot_id|>", "Two.<|eot_id|>", "Three.<|eot_id|>"]
    assert capsys.readouterr().out.endswith("a token of the assistant; 1 make several rows, 3 in all\n")
    last = supervised("train", changing, 512, loss_on="last")
    assert last["input_ids"] == rows["input_ids"][1:]


def test_conversations_that_the_template_refuses_are_counted_up_to_a_share(
    changing: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = [{"role": "system", "content": "Be brief."}, *chat("1?", "One.")]
    put_rows("train", [refused, *(chat(f"{n}?", "Yes.") for n in range(3))])
    assert len(supervised("train", changing, 512)) == 3
    said = "of the assistant, 1 refused by the chat template (No system prompt; row 1, '1?'), and left out"
    assert capsys.readouterr().out.strip().endswith(said)
    with pytest.raises(
        UserError, match=r"^25\.0% of the train rows: 1 refused by .* train\.max_truncated allows 10\.0%"
    ):
        supervised("train", changing, 512, 0.1)
    put_rows("validation", [refused])
    with pytest.raises(UserError, match=r"^100\.0% of the validation rows: 1 refused by the chat template \(No system"):
        supervised("validation", changing, 512)


def test_a_plain_text_that_goes_on_in_further_rows_is_not_cut(
    changing: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Once upon a time there was a colour, and its name was blue."
    put_rows("train", [[{"role": "text", "content": text}]])
    rows = supervised("train", changing, 8, 0.0)
    assert changing.decode([i for ids in rows["input_ids"] for i in ids]) == f"{text}<|eot_id|>"
    assert rows["labels"] == rows["input_ids"]
    said = f"0 cut at 8 tokens, 0 left out without a token of the assistant; 1 make several rows, {len(rows)} in all"
    assert said in capsys.readouterr().out


def test_a_share_of_cut_rows_is_allowed(tokenizer: PreTrainedTokenizerBase) -> None:
    lengths = sorted(len(ids) for ids in supervised("train", tokenizer, 512)["input_ids"])
    limit = lengths[-11]  # ten are longer
    longer = sum(length > limit for length in lengths)
    assert len(supervised("train", tokenizer, limit, longer / 104)) == 104
    with pytest.raises(UserError, match=rf"\({longer} of 104\) are cut .* train\.max_length {limit}, .* allows 1\.0%"):
        supervised("train", tokenizer, limit, 0.01)


def test_a_row_of_which_the_template_leaves_something_out_is_refused_by_its_number(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = '[{"type": "function", "function": {"name": "add", "arguments": {"to": 5}}}]'
    called = [{"role": "user", "content": "Add\n it."}, {"role": "assistant", "content": "", "tool_calls": call}]
    plain = [{**message, "tool_calls": None} for message in chat("Hi", "Yo")]
    put_rows("train", [plain, called, *[plain] * 8])
    assert len(supervised("train", tokenizer, 512, 0.1)) == 9
    expected = (
        r"^20\.0% of the train rows: 2 refused by the chat template \(it leaves out what the assistant called; the "
        r"first: row 2, 'Add it\.'\), and train\.max_truncated allows 10\.0%; take them out of the data, or set "
    )
    put_rows("train", [plain, called, called, *[plain] * 7])
    with pytest.raises(UserError, match=expected):
        supervised("train", tokenizer, 512, 0.1)
