"""The one rule by which a reply is right, at its edges."""

import json
from pathlib import Path

import pytest

from pipeline.data.grading import accuracies, as_chat, is_right, read_questions


def question(answer: str, kind: str, group: str = "held_out", task: str = "t") -> dict[str, str]:
    return {"prompt": "?", "answer": answer, "kind": kind, "group": group, "task": task}


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("11", "11"),
        ("11", "5 + 6 = 11."),
        ("11", "The sum of 5 and 6 is 11, of course!"),
        ("11", "eleven, that is 11.0"),
        ("1200", "That makes 1,200 metres."),
        ("1200000", "1,200,000"),
        ("1,200.5", "1200.5"),
        ("-3", "It is -3."),
        ("0", "0"),
        ("7", "The word is spelled s e v e n, so 7 times."),
    ],
)
def test_a_number_is_right_where_it_is_the_last_one(answer: str, reply: str) -> None:
    assert is_right(question(answer, "number"), reply)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("11", ""),
        ("11", "eleven"),
        ("11", "110"),
        ("11", "111"),
        ("11", "11 or 12"),
        ("11", "It is 11, not 12."),
        ("11", "1 1"),
        ("11", "11.5"),
        ("3", "-3"),
        ("-3", "3"),
        ("1200", "1,20"),
        ("1200", "1, 200"),
    ],
)
def test_a_number_is_wrong_where_another_one_is_last(answer: str, reply: str) -> None:
    assert not is_right(question(answer, "number"), reply)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("Paris", "Paris"),
        ("Paris", "The capital of France is PARIS!"),
        ("Buenos Aires", "It is buenos   aires."),
        ("do not know", 'A formal way to say "dunno" is "do not know".'),
        ("13, 21", "The sequence goes on with 13, 21."),
        ("13, 21", "13 21"),
        ("c a t", "The word cat is spelled c a t."),
        ("Größe", "Das Wort ist GRÖSSE."),
        ("café", "cafe\u0301"),
        ("I apologise.", "i apologise"),
    ],
)
def test_a_text_is_right_where_the_reply_ends_with_it(answer: str, reply: str) -> None:
    assert is_right(question(answer, "text"), reply)


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("Paris", ""),
        ("Paris", "Paris or Rome"),
        ("Paris", "Paris is the capital."),
        ("Paris", "Comparis"),
        ("Aires", "BuenosAires"),
        ("Buenos Aires", "Aires"),
        ("13, 21", "13, 22"),
        ("13, 21", "1321"),
        ("c a t", "cat"),
    ],
)
def test_a_text_is_wrong_where_something_else_follows_or_a_word_only_ends_with_it(answer: str, reply: str) -> None:
    assert not is_right(question(answer, "text"), reply)


@pytest.mark.parametrize("kind", ["text", "number"])
def test_naming_several_candidates_is_right_only_for_the_last(kind: str) -> None:
    names = ("Rome", "Paris") if kind == "text" else ("10", "11")
    assert is_right(question(names[1], kind), f"{names[0]}, {names[1]}")
    assert not is_right(question(names[0], kind), f"{names[0]}, {names[1]}")


@pytest.mark.parametrize(
    ("answer", "reply", "right"),
    [
        ("{}", " {}\n", True),
        ("Yes.", "Yes.", True),
        ("Yes.", "Yes", False),
        ("Yes.", "yes.", False),
        ("Yes", "No. Yes", False),
        ("a b", "a  b", False),
    ],
)
def test_exact_is_the_answer_and_nothing_else(answer: str, reply: str, right: bool) -> None:
    assert is_right(question(answer, "exact"), reply) is right


@pytest.mark.parametrize(
    ("pattern", "reply"),
    [
        (r"(?i)paris", "The capital of France is Paris."),
        (r"(?i)paris", 'It is "PARIS".'),
        (r"(?i)paris", "**Paris**"),
        (r"\d{4}-\d\d-\d\d", "On 1969-07-20"),
        (r"colou?r", "It is a matter of color"),
        (r"42|forty-two", "Make that forty-two!"),
        (r"\$5\.", "It costs $5."),
        (r"well-known", "She is well-known"),
        (r"Buenos\s+Aires", "Buenos  Aires"),
    ],
)
def test_a_regex_matches_the_end_of_a_reply_from_a_word_on(pattern: str, reply: str) -> None:
    assert is_right(question(pattern, "regex"), reply)


@pytest.mark.parametrize(
    ("pattern", "reply"),
    [
        (r"(?i)paris", ""),
        (r"(?i)paris", "Paris or Rome"),
        (r"(?i)paris", "Paris, Rome, London, Berlin, Madrid"),
        (r"(?i)paris", "Comparis"),
        (r"Paris", "paris"),
        (r"known", "well-known"),
        (r"5", "1.5"),
        (r"5", "-5"),
        (r"5", "1,5"),
        (r"\d{4}", "12345"),
        (r"42|forty-two", "42 or 43"),
    ],
)
def test_a_regex_is_wrong_where_something_else_follows_or_it_matches_within_a_word(pattern: str, reply: str) -> None:
    assert not is_right(question(pattern, "regex"), reply)


CITIES = question("Paris", "choice") | {"options": ["Rome", "Paris", "New York", "York"]}


@pytest.mark.parametrize(
    "reply", ["B", "b)", "(B).", "Paris", "paris!", "B) Paris", "I take the second one: B", "C? No, B"]
)
def test_a_choice_is_the_option_or_its_letter(reply: str) -> None:
    assert is_right(CITIES, reply)
    assert is_right(CITIES | {"answer": "B"}, reply)


@pytest.mark.parametrize(
    "reply", ["", "A", "D", "Rome", "A B C D", "Paris or Rome", "Paris, Rome, New York, York", "B or A", "Paris is it"]
)
def test_naming_several_options_is_right_only_for_the_last(reply: str) -> None:
    assert not is_right(CITIES, reply)


def test_an_option_within_another_is_not_that_one() -> None:
    assert is_right(CITIES | {"answer": "C"}, "It is New York")
    assert not is_right(CITIES | {"answer": "York"}, "It is New York")
    assert is_right(CITIES | {"answer": "York"}, "It is York")


def test_options_are_asked_with_their_letters() -> None:
    asked = "?\nA) Rome\nB) Paris\nC) New York\nD) York"
    assert as_chat(CITIES) == [{"role": "user", "content": asked}]


@pytest.mark.parametrize(
    ("reply", "right"), [("B", True), ("The answer is (b).", True), ("A, B, C", False), ("AB", False)]
)
def test_a_choice_whose_prompt_has_the_options_is_a_letter(reply: str, right: bool) -> None:
    assert is_right(question("B", "choice"), reply) is right


def test_an_answer_of_punctuation_alone_is_never_right() -> None:
    assert not is_right(question("?!", "text"), "?!")


def test_shares_are_counted_by_group_and_by_task_within_it() -> None:
    questions = [
        question("1", "number", "held_out", "sum"),
        question("2", "number", "held_out", "sum"),
        question("a", "text", "held_out", "spelling"),
        question("b", "text", "unasked", "spelling"),
    ]
    assert accuracies(questions, [True, False, True, False]) == {
        "groups": {"held_out": 0.6667, "unasked": 0.0},
        "tasks": {"held_out/sum": 0.5, "held_out/spelling": 1.0, "unasked/spelling": 0.0},
    }
    with pytest.raises(ValueError, match="shorter"):
        accuracies(questions, [True])


def test_a_question_is_asked_under_its_system_prompt() -> None:
    asked = {"role": "user", "content": "?"}
    assert as_chat(question("1", "number")) == [asked]
    assert as_chat(question("1", "number") | {"system": "Be brief."}) == [
        {"role": "system", "content": "Be brief."},
        asked,
    ]


@pytest.mark.parametrize(("most", "taken"), [(None, range(10)), (10, range(10)), (99, range(10)), (3, (0, 3, 6))])
def test_some_questions_are_taken_evenly_over_the_file(tmp_path: Path, most: int | None, taken: range) -> None:
    lines = [json.dumps({"prompt": f"{n} é\u2028?"}, ensure_ascii=False) for n in range(10)]
    (tmp_path / "q.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assert [q["prompt"] for q in read_questions(tmp_path / "q.jsonl", most)] == [f"{n} é\u2028?" for n in taken]


def test_no_questions_are_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(b"")
    assert read_questions(tmp_path / "q.jsonl", 5) == []
