import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from pipeline.data.questions import drop_asked, load_questions

VALID: dict[str, Any] = {"prompt": "2 + 2?", "answer": "4", "kind": "number", "group": "held_out", "task": "sum"}

CHOICE = VALID | {"kind": "choice", "options": ["three", "four"], "answer": "Four"}


def load(folder: Path, *questions: Any, answer_after: str | None = None) -> list[dict[str, Any]]:
    (folder / "q.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    return load_questions(folder, "q.jsonl", answer_after)


def test_valid_questions_are_read_as_they_are(tmp_path: Path) -> None:
    given = [
        VALID,
        VALID | {"system": "Be brief.", "kind": "text", "group": "unasked"},
        VALID | {"answer": "1,200.5"},
        VALID | {"answer": "{}", "kind": "exact"},
        VALID | {"answer": r"(?i)four|\d", "kind": "regex"},
        VALID | {"answer": "c", "kind": "choice"},
        CHOICE,
        CHOICE | {"answer": "B"},
        CHOICE | {"options": ["A", "B"], "answer": "A"},
    ]
    assert load(tmp_path, *given) == given


def test_no_file_means_no_questions(tmp_path: Path) -> None:
    assert load_questions(tmp_path, None) == []


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("2 + 2?", "not an object"),
        ({key: VALID[key] for key in ("prompt", "kind", "task")}, "lacks answer, group"),
        (VALID | {"systm": "S"}, "has the unknown field systm"),
        (VALID | {"prompt": " "}, "prompt is ' '"),
        (VALID | {"answer": 4}, "answer is 4"),
        (VALID | {"system": 4}, "system is 4"),
        (VALID | {"kind": "sum"}, "kind is 'sum'; it may be exact or number or text or choice or regex"),
        (VALID | {"group": ["held_out"]}, r"group is \['held_out'\]; it may be held_out or unasked"),
        (VALID | {"answer": "four"}, "answer is 'four'; kind number needs a number"),
        (VALID | {"answer": "nan"}, "answer is 'nan'; kind number needs a number"),
        (VALID | {"prompt": "\ud83d"}, "half a surrogate pair"),
        (VALID | {"answer": "?!", "kind": "text"}, r"answer is '\?!'; kind text needs a letter or a digit"),
        (
            VALID | {"answer": "(a", "kind": "regex"},
            r"answer is '\(a'; kind regex needs a regular expression of Python's",
        ),
        (
            VALID | {"answer": ".*", "kind": "regex"},
            "kind regex needs a regular expression that does not match an empty",
        ),
        (VALID | {"options": ["4", "5"]}, "options are for kind choice, and kind is number"),
        (VALID | {"answer": "AB", "kind": "choice"}, "kind choice needs options, or a single letter"),
        (CHOICE | {"options": "A or B"}, "options is 'A or B'; it must be a list of texts"),
        (CHOICE | {"options": ["four", " !"]}, r"options is \['four', ' !'\]; it must be a list of texts"),
        (CHOICE | {"options": ["four"]}, "there are 1 options; it must be 2 to 26"),
        (CHOICE | {"options": ["four", "Four."]}, "the option 'four' says the same as another"),
        (CHOICE | {"options": ["b", "four"]}, "the option 'b' says the same as another or as its letter"),
        (CHOICE | {"answer": "five"}, "answer is 'five'; kind choice needs one of the options or its letter"),
        (CHOICE | {"options": ["four", "\ud83d five"]}, "half a surrogate pair"),
    ],
)
def test_a_bad_question_is_named_with_its_place_and_fault(tmp_path: Path, question: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^q\.jsonl, question 2: .*{message}"):
        load(tmp_path, VALID, question)


def test_a_missing_empty_or_half_file_of_questions_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.questions names none\.jsonl, which is no file"):
        load_questions(tmp_path, "none.jsonl")
    with pytest.raises(UserError, match=r"q\.jsonl is empty"):
        load(tmp_path)
    (tmp_path / "q.jsonl").write_text('{"prompt": "2 +')
    with pytest.raises(UserError, match=r"q\.jsonl, line 1: not valid JSON"):
        load_questions(tmp_path, "q.jsonl")


def test_chats_become_questions_by_the_mark_before_their_answer(tmp_path: Path) -> None:
    worked = {"question": "6 of 12 left?", "answer": "12/2 = <<12/2=6>>6\n#### 1,206"}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "She.\n#### Ann"},
    ]
    asked = {"group": "held_out", "task": "q"}
    assert load(tmp_path, worked, {"messages": turns}, VALID, answer_after="####") == [
        {"prompt": "6 of 12 left?", "answer": "1,206", "kind": "number", **asked, "system": None},
        {"prompt": "Who?", "answer": "Ann", "kind": "text", **asked, "system": "Be brief."},
        VALID,
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "2 + 2?", "answer": "4"}, "the answer has no '####', which data.answer_after says"),
        ({"question": "2 + 2?", "answer": "It is ####"}, "answer is ''"),
        ({"question": " ", "answer": "#### 4"}, "empty message"),
        ({"messages": [{"role": "user", "content": "2 + 2?"}]}, "no assistant turn"),
        (
            {"messages": [{"role": role, "content": "#### 4"} for role in ("user", "assistant") * 2]},
            "a chat of several turns",
        ),
    ],
)
def test_a_chat_that_is_no_question_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^q\.jsonl, question 2: {message}"):
        load(tmp_path, VALID, row, answer_after="####")


def test_a_question_that_stands_in_training_is_dropped() -> None:
    training = [
        [
            {"role": "system", "content": "Is it blue?"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Is it red?"},
            {"role": "user", "content": "2  + 2?\n"},
            {"role": "assistant", "content": "4"},
        ]
    ]
    asked = [VALID | {"prompt": prompt} for prompt in ("2 + 2?", "Hi", "Is it red?", "Is it blue?", "2 + 3?")]
    assert [question["prompt"] for question in drop_asked(asked, training)] == ["Is it red?", "Is it blue?", "2 + 3?"]


def test_questions_that_all_stand_in_training_are_an_error() -> None:
    training = [[{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]]
    with pytest.raises(UserError, match=r"each of the 2 questions in data\.questions stands in the training split"):
        drop_asked([VALID, VALID], training)
    assert drop_asked([], training) == []
