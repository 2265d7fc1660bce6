"""What a reply has to be like: each kind of check, what passes it and what does not, and checks that cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from pipeline.data.checks import RULES, fault, passes, sentences
from pipeline.data.grading import accuracies, headline_group, is_right, read_questions
from pipeline.data.questions import KINDS, load_questions

SHIPPED = Path(__file__).parents[3] / "instructions/checked.jsonl"
TABLE = "Here it is:\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n"
GERMAN = "Ein Fahrrad hat zwei Räder, und man tritt in die Pedale, damit es fährt."

PASSED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "words", "exactly": 3}, "One - two, three!"),
    ({"kind": "words", "at_least": 2, "at_most": 3}, "one\ntwo"),
    ({"kind": "characters", "at_most": 3}, " abc \n"),
    ({"kind": "sentences", "exactly": 2}, "It costs 3.50, e.g. at Dr. Hill's. Does it?"),
    ({"kind": "sentences", "exactly": 1}, "No mark at the end"),
    ({"kind": "paragraphs", "exactly": 2}, "One\nstill one.\n\n\nTwo."),
    ({"kind": "lines", "exactly": 2}, "one\n\ntwo\n"),
    ({"kind": "items", "exactly": 3}, "Three:\n- one\n  * two\n3) three"),
    ({"kind": "items", "exactly": 0}, "-no item-"),
    ({"kind": "times", "text": "green", "exactly": 2}, "Green on green, and evergreen."),
    ({"kind": "times", "text": "a b", "at_least": 1}, "a\nB"),
    ({"kind": "has", "texts": ["Nile", "don't"]}, "I don\u2019t know the NILE."),
    ({"kind": "has", "texts": ["\u6771\u4eac"]}, "\u79c1\u306f\u6771\u4eac\u306b\u4f4f\u3093\u3067\u3044\u307e\u3059"),
    ({"kind": "has_not", "texts": ["big"]}, "bigger"),
    ({"kind": "starts", "text": "In short,"}, "  in  short, no."),
    ({"kind": "ends", "text": "every penny counts"}, "Save: every penny counts.**"),
    ({"kind": "ends", "text": "Will you?"}, "I vote. Will you?"),
    ({"kind": "json"}, "[1, 2]"),
    ({"kind": "json", "keys": ["a"]}, '```json\n{"a": 1, "b": null}\n```'),
    ({"kind": "table"}, TABLE),
    ({"kind": "heading"}, "Well\n## Title"),
    ({"kind": "lower_case"}, "all small, 3 of it"),
    ({"kind": "upper_case"}, "STOP! 3 M"),
    ({"kind": "no_commas"}, "None here."),
    ({"kind": "quoted"}, '"All of it."'),
    ({"kind": "quoted"}, "\u201eGanz.\u201c"),
    ({"kind": "language", "code": "de"}, GERMAN),
]

FAILED: list[tuple[dict[str, Any], str]] = [
    ({"kind": "words", "exactly": 3}, "one two"),
    ({"kind": "words", "at_most": 2}, "one two three"),
    ({"kind": "words", "at_most": 2}, " "),  # what says nothing heeds nothing
    ({"kind": "characters", "at_most": 3}, "abcd"),
    ({"kind": "sentences", "exactly": 2}, "Only one."),
    ({"kind": "paragraphs", "exactly": 2}, "one\ntwo"),
    ({"kind": "items", "exactly": 2}, "one, two"),
    ({"kind": "times", "text": "green", "exactly": 2}, "green"),
    ({"kind": "has", "texts": ["Nile", "Danube"]}, "The Nile."),
    ({"kind": "has_not", "texts": ["big"]}, "So BIG!"),
    ({"kind": "has_not", "texts": ["big"]}, ""),
    ({"kind": "starts", "text": "In short,"}, "Well, in short, no."),
    ({"kind": "ends", "text": "every penny counts"}, "every penny counts, always"),
    ({"kind": "json"}, "{'a': 1}"),
    ({"kind": "json"}, '{"a": NaN}'),
    ({"kind": "json"}, 'Sure: {"a": 1}'),
    ({"kind": "json"}, "[" * 100_000),
    ({"kind": "json", "keys": ["a"]}, '[{"a": 1}]'),
    ({"kind": "json", "keys": ["a", "b"]}, '{"a": 1}'),
    ({"kind": "table"}, "| a | b |\n| 1 | 2 |"),
    ({"kind": "heading"}, "#hashtag"),
    ({"kind": "lower_case"}, "one Capital"),
    ({"kind": "upper_case"}, "123"),
    ({"kind": "no_commas"}, "one, two"),
    ({"kind": "quoted"}, '"Not" all'),
    ({"kind": "language", "code": "fr"}, GERMAN),
    ({"kind": "language", "code": "de"}, "Ja."),  # too short to tell
]  # fmt: skip


@pytest.mark.parametrize(("check", "reply"), PASSED)
def test_a_reply_that_does_as_it_is_told_passes(check: dict[str, Any], reply: str) -> None:
    assert fault(check) is None
    assert passes(check, reply)


@pytest.mark.parametrize(("check", "reply"), FAILED)
def test_a_reply_that_does_otherwise_fails(check: dict[str, Any], reply: str) -> None:
    assert fault(check) is None
    assert not passes(check, reply)


def test_each_kind_is_tried_both_ways() -> None:
    for tried in (PASSED, FAILED):
        assert {check["kind"] for check, _ in tried} >= RULES.keys() - {"lines"}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Wait... what? Yes!", 3),
        ("He said \u201cno.\u201d Then he left.", 2),
        ("# Title\n\nIt is 3.5 m long.", 2),
        ("\u6771\u4eac\u3067\u3059\u3002\u597d\u304d\u3067\u3059\u3002", 2),
        ("Mr. Hill vs. Mrs. Dale.", 1),
    ],
)
def test_sentences_are_counted_as_people_do(text: str, count: int) -> None:
    assert sentences(text) == count


def asked(*checks: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": "?", "checks": list(checks), "kind": "checks", "group": "instructions", "task": "form"} | more


def test_a_question_is_right_if_every_check_passes() -> None:
    question = asked({"kind": "words", "at_most": 3}, {"kind": "has", "texts": ["red"]})
    assert is_right(question, "It is red.")
    assert not is_right(question, "It is blue.")
    assert not is_right(question, "I think that it is red.")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (asked(), r"checks is \[\]; it must be a list of at least one check"),
        (asked({"kind": "words", "exactly": 1}, answer="x"), "has the unknown field answer; it needs prompt, checks,"),
        ({key: value for key, value in asked().items() if key != "checks"}, "lacks checks"),
        (asked("words"), "check 1 is no object with a kind"),
        (asked({"kind": "rhyme"}), "check 1 is of the unknown kind 'rhyme'; there are words, characters"),
        (asked({"kind": "json"}, {"kind": ["json"]}), r"check 2 is of the unknown kind \['json'\]"),
        (asked({"kind": "words"}), "check 1 has no bounds; it needs exactly, or at_least or at_most"),
        (asked({"kind": "words", "exactly": 3, "at_most": 4}), "has at_most and exactly; it needs exactly, or"),
        (asked({"kind": "words", "at_least": 5, "at_most": 4}), "asks for at least 5 and at most 4, which no reply"),
        (asked({"kind": "words", "at_most": 0}), "asks for at least 1 and at most 0, which no reply can be"),
        (asked({"kind": "words", "at_least": 1}), "check 1 asks for nothing"),
        (asked({"kind": "items", "exactly": -1}), "has exactly -1; it must be a whole number from 0 up"),
        (asked({"kind": "lines", "exactly": True}), "has exactly True; it must be a whole number"),
        (asked({"kind": "lines", "at_least": "3"}), "has at_least '3'; it must be a whole number"),
        (asked({"kind": "times", "at_most": 3}), "lacks text, which kind times needs"),
        (asked({"kind": "has", "texts": "red"}), "has the texts 'red'; it must be a list of texts that are not empty"),
        (asked({"kind": "has", "texts": []}), r"has the texts \[\]; it must be a list of texts"),
        (asked({"kind": "starts", "text": " "}), "has the text ' '; it must be a text that is not empty"),
        (asked({"kind": "table", "rows": 3}), "has rows, and kind table takes nothing more"),
        (asked({"kind": "json", "key": "a"}), "has key, and kind json takes keys"),
        (asked({"kind": "language", "code": "German"}), "has the code 'German'; it must be the ISO 639-1 code"),
        (asked({"kind": "starts", "text": "\ud83d"}), "half a surrogate pair"),
    ],
)
def test_a_check_that_cannot_be_is_named_with_its_place(tmp_path: Path, question: Any, message: str) -> None:
    good = asked({"kind": "no_commas"})
    (tmp_path / "q.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(question) + "\n")
    with pytest.raises(UserError, match=rf"^q\.jsonl, question 2: .*{message}") as raised:
        load_questions(tmp_path, "q.jsonl")
    assert "\n" not in str(raised.value)


def test_the_set_that_ships_is_sound_and_tries_every_kind() -> None:
    questions = load_questions(SHIPPED.parents[1], "instructions/checked.jsonl")
    assert 60 <= len(questions) <= 100
    assert len({question["prompt"] for question in questions}) == len(questions)
    for question in questions:
        assert 1 <= len(question["checks"]) <= 2
        assert (question["group"], question["task"]) == ("instructions", question["checks"][0]["kind"])
    assert {check["kind"] for question in questions for check in question["checks"]} == set(RULES)


def test_no_single_reply_wins_much_of_the_set_that_ships() -> None:
    questions = read_questions(SHIPPED, None)
    for reply in ("Yes.", "[]", "I am sorry, but I cannot help with that.", "word " * 300):
        assert sum(is_right(question, reply) for question in questions) < len(questions) / 4


def test_questions_of_several_files_are_asked_together(tmp_path: Path) -> None:
    plain = {"prompt": "2 + 2?", "answer": "4", "kind": "number", "group": "held_out", "task": "sum"}
    for name, question in (("a.jsonl", plain), ("b.jsonl", asked({"kind": "no_commas"}))):
        (tmp_path / name).write_text(json.dumps(question) + "\n")
    both = load_questions(tmp_path, ["a.jsonl", "b.jsonl"])
    assert [question["kind"] for question in both] == ["number", "checks"]
    shares = accuracies(both, [False, True])
    assert shares["groups"] == {"held_out": 0.0, "instructions": 1.0}
    assert headline_group(shares["groups"]) == "held_out"
    assert headline_group({"instructions", "unasked"}) == "unasked"
    assert "checks" in KINDS
