"""Examples as the page shows them."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from pipeline.core.data_settings import NO_CLEANING
from pipeline.core.messages import Message, Messages
from pipeline.data.cleaning import Cleaning
from pipeline.data.cleaning_rules import REASONS
from pipeline.data.example_rows import BEGINNING, TURNS, ExampleRow, example_row, example_rows
from pipeline.data.examples import Examples
from pipeline.data.rows import Conversation
from pipeline.data_report.shown import (
    BEFORE,
    LONG,
    ROW,
    SHOWN,
    shown_answers,
    shown_pair,
    shown_pairs,
    shown_rejects,
    shown_row,
    windowed,
)


def row(question: str, answer: str, *more: Message) -> ExampleRow:
    messages: Messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return example_row("a.jsonl", [*messages, *more])


def test_words_that_the_other_row_has_not_are_marked() -> None:
    pair = shown_pair(row("How so?", "It is blue."), row("HOW SO?", "It is blue."))
    assert pair.dropped.turns[0].pieces == [("How so?", True)]
    assert pair.kept.turns[1].pieces == [("It is blue.", False)]
    assert pair.differ


def test_a_chosen_answer_stands_beside_the_rejected_one_and_a_judgement_alone() -> None:
    def said(answer: str) -> Messages:
        return [{"role": "user", "content": "How so?"}, {"role": "assistant", "content": answer}]

    chosen, rejected = shown_answers([(said("It is blue."), True), (said("It is red."), False)])
    assert [(one.title, one.is_good) for one in (chosen, rejected)] == [("chosen", True), ("rejected", False)]
    assert chosen.row.turns[0].pieces == [("How so?", False)]
    assert ("blue", True) in [(text.strip(" ."), marked) for text, marked in chosen.row.turns[1].pieces]
    assert ("red", True) in [(text.strip(" ."), marked) for text, marked in rejected.row.turns[1].pieces]
    (judged,) = shown_answers([(said("No."), False)])
    assert (judged.title, judged.is_good) == ("bad", False)
    assert judged.row.turns[1].pieces == [("No.", False)]


def test_a_row_with_more_turns_than_the_one_kept_is_shown_whole() -> None:
    short = row("How?", "So.")
    longer = row("How?", "So.", {"role": "user", "content": "Why?"})
    pair = shown_pair(longer, short)
    assert [turn.pieces for turn in pair.dropped.turns] == [[("How?", False)], [("So.", False)], [("Why?", True)]]
    assert len(pair.kept.turns) == 2


def test_pairs_that_differ_come_first() -> None:
    questions = [f"Question {number}?" for number in range(40)]
    questions += [f"Question {number}{'!' if number == 7 else '?'}" for number in range(40)]
    chats: list[Messages] = [[{"role": "user", "content": text}] for text in questions]
    digests = [blake2b(text.encode()).digest() for text in questions]
    examples = Examples(0, digests.__getitem__)
    examples.left_out("duplicates", [(number + 40, number) for number in range(3, 9)])

    def fetch(numbers: Sequence[int]) -> list[Conversation]:
        return [Conversation(chats[number], "a.jsonl", None) for number in numbers]

    pairs = shown_pairs(example_rows(examples, Cleaning(NO_CLEANING), fetch))["duplicates"]
    assert len(pairs) == SHOWN
    assert pairs[0].dropped.turns[0].pieces == [("Question ", False), ("7!", True)]
    assert [pair.differ for pair in pairs] == [True] + [False] * (SHOWN - 1)


def test_a_long_text_is_shown_from_before_its_first_mark() -> None:
    pieces = [("a" * 3000, False), ("other", True), ("b" * 3000, False)]
    shown = windowed(pieces, sum(len(text) for text, _ in pieces))
    assert shown[0] == (f"{3000 - BEFORE:,} characters \u2026 ", False)
    assert shown[1:3] == [("a" * BEFORE, False), ("other", True)]
    assert shown[3][0] == "b" * (LONG - BEFORE - 5)
    assert shown[4][0] == f" \u2026 {3000 - (LONG - BEFORE - 5):,} characters more"


def test_a_short_text_is_shown_whole() -> None:
    assert windowed([("short", False)], 5) == [("short", False)]


def test_rejects_are_drawn_by_reason_and_those_of_cleaning_are_elsewhere(tmp_path: Path) -> None:
    rejects = [{"source": "a", "line": line, "reason": "no known format", "row": {"x": line}} for line in range(50)]
    rejects += [{"source": "a", "line": 50, "reason": "not valid JSON (at 3)", "row": "{" * 2000}]
    rejects += [{"source": "a", "line": 51, "reason": next(iter(REASONS)), "row": {}}]
    rejects += [{"source": "b", "line": 7, "reason": "no known format", "row": {"half": "\ud800"}}]
    path = tmp_path / "rejected.jsonl"
    path.write_text("".join(json.dumps(reject) + "\n" for reject in rejects))
    shown = shown_rejects(path, seed=1)
    assert list(shown) == ["no known format", "not valid JSON"]
    assert len(shown["no known format"]) == SHOWN
    assert (shown["not valid JSON"][0].place, len(shown["not valid JSON"][0].row)) == ("a:50", ROW + 2)
    path.write_text("".join(json.dumps(reject) + "\n" for reject in reversed(rejects)))
    assert shown_rejects(path, seed=1) == shown


def test_of_a_huge_conversation_the_beginning_is_kept() -> None:
    messages: Messages = [{"role": "user", "content": "a" * 10**6} for _ in range(100)]
    kept = example_row("a.jsonl", messages)
    assert len(kept.turns) == TURNS
    assert (len(kept.turns[0].text), kept.turns[0].characters) == (BEGINNING, 10**6)
    assert shown_row(kept).turns[0].pieces[-1] == (f" \u2026 {10**6 - LONG:,} characters more", False)
