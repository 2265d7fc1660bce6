"""What a prepared split comes to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data_report.figures import MOST, first_rows, split_figures
from pipeline.data_report.record import SplitFigures

WEIGHED = pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.int8())])


def chat(question: str, answer: str, weight: int = 1) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": question, "weight": 1},
        {"role": "assistant", "content": answer, "weight": weight},
    ]


def split(tmp_path: Path, chats: Sequence[list[dict[str, Any]]], sources: list[str] | None = None) -> Path:
    path = tmp_path / "train.parquet"
    columns: dict[str, Any] = {"messages": pa.array(chats, pa.list_(WEIGHED))}
    if sources:
        columns["source"] = sources
    pq.write_table(pa.table(columns), path, row_group_size=7)
    return path


def figures_of(path: Path) -> tuple[SplitFigures, dict[str, Any]]:
    return split_figures(path, first_rows(path, 100), None)


def test_messages_are_counted_by_role_with_their_lengths(tmp_path: Path) -> None:
    figures, words = figures_of(split(tmp_path, [chat("one two", "three"), chat("four", "five six seven eight")]))
    assert figures.rows == 2
    assert figures.roles["user"].messages == 2
    assert figures.roles["user"].words == {"median": 1, "90%": 2, "99%": 2, "longest": 2}
    assert figures.roles["assistant"].characters == {"median": 5, "90%": 20, "99%": 20, "longest": 20}
    assert sorted(words["assistant"].tolist()) == [1, 4]


def test_answers_that_stand_several_times_are_named_the_commonest_first(tmp_path: Path) -> None:
    chats = [chat(f"{number}?", f"It is number {number} of them.") for number in range(20)]
    chats += [chat(f"Is {number} even?", "Yes." if number % 3 else "No. ") for number in range(20)]
    answers = figures_of(split(tmp_path, chats))[0].answers
    assert (answers.answers, answers.different, answers.short) == (40, 22, 20)
    assert [(one.answer, one.times) for one in answers.most] == [("Yes.", 13), ("No.", 7)]


def test_of_answers_that_stand_as_often_the_first_are_named(tmp_path: Path) -> None:
    chats = [chat(f"{number}?", f"Answer {number % 60}.") for number in range(120)]
    most = figures_of(split(tmp_path, chats))[0].answers.most
    assert [one.answer for one in most] == [f"Answer {number}." for number in range(MOST)]


def test_what_is_shown_and_not_learnt_is_no_answer(tmp_path: Path) -> None:
    answers = figures_of(split(tmp_path, [chat("a?", "Hello.", weight=0), chat("b?", "Hello.")]))[0].answers
    assert (answers.answers, answers.most) == (1, ())


def test_rows_are_counted_by_source_and_language(tmp_path: Path) -> None:
    german = chat("Wie heißt du?", "Ich heiße Anna und wohne mit meiner Familie in einem kleinen Dorf.")
    english = chat("Who are you?", "My name is Anna and I live with my family in a little village.")
    figures, _ = figures_of(split(tmp_path, [german, english, english, chat("1 + 1", "2")], ["b", "a", "a", "a"]))
    assert figures.sources == {"a": 3, "b": 1}
    assert figures.languages == {"en": 2, "de": 1, "unknown": 1}
    assert figures.drawn == 4


def test_rows_are_counted_by_the_quality_of_their_poorest_answer(tmp_path: Path) -> None:
    menu = chat("Where?", "| Home | News | Sport | Home | News | Sport " * 9)
    figures = figures_of(split(tmp_path, [menu, chat("So?", "Yes, it is so.")]))[0]
    assert figures.quality == {"below 0.3": 0, "0.3 to 0.5": 1, "0.5 to 0.7": 0, "0.7 to 0.9": 0, "0.9 to 1": 1}


def test_first_rows_are_those_of_the_file_in_order(tmp_path: Path) -> None:
    path = split(tmp_path, [chat(f"{number}?", "Yes.") for number in range(20)])
    assert [row[0]["content"] for row in first_rows(path, 9)] == [f"{number}?" for number in range(9)]
