"""A conversation counts once, however many rows its turns make."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import EvaluateSettings, load
from pipeline.core.paths import TEST
from pipeline.evaluation.inputs import Conversation, Material, drawn, read_conversations

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
# Writes `draft` before the last answer alone, and takes no system prompt.
CHANGING = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('No system prompt.') }}{% endif %}"
    "{% for m in messages %}{% if loop.last and m.role == 'assistant' %}{{ 'draft ' }}{% endif %}"
    "{{ m.content + eos_token }}{% endfor %}"
)


def chat(*contents: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluateSettings:
    """The starter's, in a folder with a test split."""
    refused = [{"role": "system", "content": "Be brief."}, *chat("1?", "One.")]
    chats = [chat("1?", "One.", "2?", "Two."), refused, chat("3?", "Three.")]
    monkeypatch.chdir(tmp_path)
    TEST.parent.mkdir(parents=True)
    pq.write_table(pa.table({"messages": chats}), TEST)
    return load(compose(REPO / "conf", ["model=starter-s"])).evaluate


def test_the_rows_of_a_conversation_belong_together_and_refused_ones_are_said(
    settings: EvaluateSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = CHANGING
    conversations = sorted(read_conversations(tokenizer, settings, "all"), key=lambda one: one.number)
    said = "test: 1 refused by the chat template (No system prompt; row 2, '1?'), and left out\n"
    assert capsys.readouterr().out == said
    assert [(one.number, len(one.rows)) for one in conversations] == [(1, 2), (3, 1)]
    given = Material(tokenizer, conversations, [], settings, frozenset())
    assert given.scored == [sum(sum(mask) for _, mask in one.rows) for one in conversations]
    assert given.by_conversation([1.0, 2.5, 4.0]) == [3.5, 4.0]
    assert given.by_conversation([1.0, None, 4.0]) == [None, 4.0]
    assert [len(one.rows) for one in read_conversations(tokenizer, settings, "last")] == [1, 1]


def test_a_split_of_which_the_template_takes_nothing_is_an_error(settings: EvaluateSettings) -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = "{{ raise_exception('Never.') }}"
    with pytest.raises(
        UserError,
        match=r"nothing of .* is left to score: 3 refused by the chat template \(Never; the first: row \d, '\d\?'\)",
    ):
        read_conversations(tokenizer, settings, "all")


def test_rows_are_drawn_by_the_seed_and_a_new_one_changes_the_order_of_no_others(
    settings: EvaluateSettings,
) -> None:
    names = [f"row {number}" for number in range(40)]
    order = [names[place] for place in drawn(names, 0)]
    assert sorted(order) == sorted(names)
    assert order not in (names, [names[place] for place in drawn(names, 1)])
    more = ["a new row", *reversed(names)]
    assert [name for name in (more[place] for place in drawn(more, 0)) if name != "a new row"] == order


def test_a_smaller_number_of_rows_is_the_beginning_of_a_larger_one(settings: EvaluateSettings) -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    whole = read_conversations(tokenizer, settings, "all")
    assert len(whole) == 3
    for most in (1, 2, 3):
        some = read_conversations(tokenizer, replace(settings, max_rows=most), "all")
        assert [one.digest for one in some] == [one.digest for one in whole[:most]]


def test_what_a_row_is_known_by_is_its_tokens_and_what_counts_of_them() -> None:
    def keys(*rows: Any) -> list[str]:
        return Material(None, [Conversation(1, "a", list(rows))], [], None, frozenset()).row_keys  # type: ignore[arg-type]

    row = ([1, 2, 3], [0, 1, 1])
    assert len(set(keys(row, ([1, 2, 4], [0, 1, 1]), ([1, 2, 3], [0, 0, 1])))) == 3
    assert keys(row) == keys(row)
