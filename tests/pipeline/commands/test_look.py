"""`tunesmith data look`: rows as the model reads them, in colours and in marks, and the split in figures."""

import logging
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from pipeline.commands import look
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.models.chat import load_tokenizer
from pipeline.training.rows import supervised
from pipeline.training.updates import IGNORED

REPO = Path(__file__).parents[3]
MODEL = ["model=starter-s", f"model.path={REPO / 'starter/models/starter-s'}", "train.max_length=64"]


def chat(*turns: str, system: str | None = None) -> list[dict[str, Any]]:
    told = [{"role": "system", "content": system}] if system else []
    return told + [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]


CHATS = [
    chat("What is 5 + 6?", "It is 11."),
    chat("Hi<|eot_id|>", "Hello \x1b[31mred\u202e."),
    chat("Count.", " ".join(map(str, range(40)))),
    chat(" ".join(map(str, range(45))), "Yes."),
    chat("Name a colour.", "Red.", "And another?", "Blue.", system="One word."),
]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with conf/ and a small train split."""
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setenv("COLUMNS", "100")
    put(CHATS)
    return tmp_path


def put(chats: list[list[dict[str, Any]]]) -> None:
    Path("data/prepared").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"messages": chats}), "data/prepared/train.parquet")


def shown(capsys: pytest.CaptureFixture[str], *overrides: str, chosen: list[int] | None = None, rows: int = 5) -> str:
    capsys.readouterr()
    look.run([*MODEL, *overrides], "train", rows, 0, chosen or [])
    return capsys.readouterr().out


def test_what_is_marked_is_what_training_learns(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys)
    _, *marked = re.findall("⟦(.*?)⟧", said, re.DOTALL)  # the first is the legend's
    tokenizer = load_tokenizer(load(compose(Path("conf"), MODEL)).model)
    learnt = [
        tokenizer.decode([token for token in row["labels"] if token != IGNORED])
        for row in supervised("train", tokenizer, 512)
    ]
    assert len(marked) == 7  # the one that is cut is marked on both sides of the cut
    plain = re.sub("[⟨⟩]", "", "".join(marked))
    assert plain == "".join(learnt).replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


def test_tokens_are_counted_by_turn_and_a_cut_stands_where_it_falls(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, chosen=[5, 3])
    assert re.search(
        r"── conversation 5 of 5 · \d+ tokens, \d+ learnt: system \d+, user \d+, assistant \d+ \(learnt\), user \d+, "
        r"assistant \d+ \(learnt\), template \d+\n",
        said,
    )
    before, cut, after = said.partition("── train.max_length=64 cuts here: ")
    assert cut
    assert "37 38 39⟨<|eot_id|>⟩⟧" in after
    assert "37 38 39" not in before


def test_a_row_beyond_what_the_model_reads_draws_no_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put([chat("Hi", "word " * 3000)])
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert "longest 3,0" in shown(capsys)
    assert "Token indices" not in caplog.text


def test_a_control_token_in_words_is_text_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, chosen=[2])
    assert "Hi<|eot_id|>⟨<|eot_id|>⟩" in said
    assert "control tokens in words, which stay text: <|eot_id|> 1 in 1 conversation (2)" in said


def test_words_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, chosen=[2])
    assert "Hello \\x1b[31mred\\u202e." in said
    assert "\x1b" not in said


def test_a_terminal_has_colours_and_no_marks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    said = shown(capsys, chosen=[1])
    assert "\x1b[32mIt is 11." in said
    assert "⟦" not in said
    monkeypatch.setenv("NO_COLOR", "1")
    assert "⟦It is 11." in shown(capsys, chosen=[1])


def test_the_summary_says_what_is_cut_and_which_length_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, rows=0)
    held, lengths, cut, fitting, _ = said[said.index("train: ") :].splitlines()
    assert re.fullmatch(r"train: 5 conversations, \d+ tokens of starter-s, of which \d+% are learnt", held)
    longest = int(lengths.rpartition(" ")[2])
    assert cut.startswith("train.max_length=64 cuts 40.0%: 2 conversations (3, 4); ")
    assert cut.endswith("; nothing to learn within it: 1 conversation (4)")
    assert fitting == f"of other lengths, {longest} cuts none"
    assert f"train.max_length={longest} cuts none\n" in shown(capsys, f"train.max_length={longest}", rows=0)
    assert f"train.max_length={longest - 1} cuts 20.0%" in shown(capsys, f"train.max_length={longest - 1}", rows=0)


def test_what_the_template_refuses_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("strict.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system prompt.') }}{% endif %}"
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    said = shown(capsys, "model.chat_template=strict.jinja", chosen=[5])
    assert "── conversation 5 of 5 · refused by the chat template: No system prompt" in said
    assert "\nrefused by the chat template: No system prompt: 1 conversation (5)\n" in said


def test_a_plain_text_is_read_in_rows(capsys: pytest.CaptureFixture[str]) -> None:
    put([[{"role": "text", "content": "one two three " * 40}]])
    said = shown(capsys)
    assert re.search(r"── conversation 1 of 1, row 2 of \d · \d+ tokens, \d+ learnt: text \d+ \(learnt\)\n", said)
    assert "train.max_length=64 cuts none" in said


def test_the_same_seed_draws_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, rows=2) == shown(capsys, rows=2)
    assert len(re.findall(r"^── conversation \d of 5", shown(capsys, rows=2), re.MULTILINE)) == 2


def test_one_source_is_drawn_and_summed_up_under_the_numbers_of_the_split(capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table("data/prepared/train.parquet")
    names = ["faq", "faq", "sums", "sums", "faq"]
    pq.write_table(table.append_column("source", pa.array(names)), "data/prepared/train.parquet")
    capsys.readouterr()
    look.run(MODEL, "train", 5, 0, source="sums")
    said = capsys.readouterr().out
    assert re.findall(r"^── conversation (\d) of 5", said, re.MULTILINE) == ["3", "4"]
    assert "\ntrain, sums: 2 conversations, " in said
    assert "cuts 100.0%: 2 conversations (3, 4)" in said
    with pytest.raises(UserError, match=r"has no row of the source own; it has faq, sums$"):
        look.run(MODEL, "train", 5, 0, source="own")
    put(CHATS)
    with pytest.raises(UserError, match=r"has no row of the source own; it is of a set without data.sources$"):
        look.run(MODEL, "train", 5, 0, source="own")


def test_what_is_not_there_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^data/prepared/train.parquet has 5 rows, and no row 6$"):
        look.run(MODEL, "train", 5, 0, [6])
    with pytest.raises(UserError, match=r"^data/prepared/test.parquet is missing; run `dvc repro prepare` first$"):
        look.run(MODEL, "test", 5, 0)


def test_data_prepared_by_other_settings_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "note: data/prepared/made_from.json is missing" in shown(capsys, rows=0)


def test_the_page_shows_the_same_and_fetches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    put([*CHATS, chat("<script>alert(1)</script>", "<b>No</b> \x1b.")])
    look.run(MODEL, "train", 6, 0, html=Path("look.html"))
    said, html = capsys.readouterr().out, Path("look.html").read_text(encoding="utf-8")
    assert "⟦" not in said
    assert said.endswith("page: look.html\n")
    assert all(escape(line) in html for line in said.splitlines() if line.startswith("train"))
    assert '<span class="learnt">It is 11.</span><span class="learnt control">&lt;|eot_id|&gt;</span>' in html
    assert 'Hi&lt;|eot_id|&gt;</span><span class=" control">&lt;|eot_id|&gt;</span>' in html
    assert "<script" not in html
    assert "\x1b" not in html
    assert re.findall(r"(?:src|href)=|url\(", html) == []


def test_a_page_that_cannot_be_written_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^data is a folder; name a file for the page, such as data/look\.html$"):
        look.run(MODEL, "train", 0, 0, html=Path("data"))
    with pytest.raises(UserError, match=r"^/proc/none/look\.html cannot be written: No such file or directory$"):
        look.run(MODEL, "train", 0, 0, html=Path("/proc/none/look.html"))


def put_compared() -> None:
    """A pair, two judgements and another pair, as prepare writes them."""
    said = {0: [("Red.", True), ("I won't say.", False)], 1: [("Four.", True)], 2: [("Five.", False)]}
    said[3] = [("Blue.", True), ("Blue, or red.", False)]
    rows = [
        {"messages": chat(f"Question {number}?", text), "comparison": number, "good": good}
        for number, answers in said.items()
        for text, good in answers
    ]
    Path("data/prepared/preferences").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), "data/prepared/preferences/train.parquet")


def test_the_answers_of_a_pair_stand_together_and_judgements_say_what_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    put_compared()
    assert "beside them 2 pairs, 1 good and 1 bad answers: --preferences shows these\n" in shown(capsys)
    look.run(MODEL, "train", 5, 0, [6, 4], preferences=True)
    said = capsys.readouterr().out
    assert re.findall("── (conversation .*?) ·", said) == [
        "conversation 5 of 6, pair 4, chosen",
        "conversation 6 of 6, pair 4, rejected",
        "conversation 4 of 6, judgement 3, bad",
    ]
    assert "⟦Blue, or red.⟨<|eot_id|>⟩⟧" in said
    assert "train, preferences: 6 conversations, " in said
    assert "\n2 pairs, 1 good and 1 bad answers\n" in said
    look.run(MODEL, "train", 9, 0, preferences=True)
    assert len(re.findall("── conversation", capsys.readouterr().out)) == 6


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            None,
            "preferences/train.parquet is missing: nothing is compared or judged; take data=preferences, and prepare",
        ),
        ("faq", "--preferences are kept without their source; leave --source out"),
    ],
)
def test_preferences_that_are_not_there_are_said_in_one_line(source: str | None, said: str) -> None:
    with pytest.raises(UserError) as refused:
        look.run(MODEL, "train", 5, 0, source=source, preferences=True)
    assert said in str(refused.value)
