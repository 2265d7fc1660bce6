"""What conversations are left out for, and what is masked in them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from common.errors import UserError
from pipeline.core.data_settings import NO_CLEANING, CleanSettings
from pipeline.core.formats import Message, Messages
from pipeline.data.cleaning import Cleaning
from pipeline.data.cleaning_rules import RULES, repetition
from pipeline.data.masking import is_card, is_iban

STARTER = Path(__file__).parents[3] / "starter/models/starter-s"
ALL = replace(NO_CLEANING, refusals="drop", repetition="drop", cut_off="drop", leftovers="drop")
LONG = "It may be said at first that there is much to say of it, and that one who says so has to begin with what is "


def chat(answer: str, question: str = "What is 5 + 6?") -> Messages:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def reason(answer: str, question: str = "What is 5 + 6?", settings: CleanSettings = ALL) -> str | None:
    return Cleaning(settings).reason(chat(answer, question))


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, I cannot share this.",
        "Sorry, I am unable to do so.",
        "As an AI language model, I have no opinions.",
        "I cannot provide medical advice.",
        "Unfortunately, I can't assist with that.",
        "We are afraid that we cannot say.",
    ],
)
def test_a_refusal_is_known_by_how_it_begins(answer: str) -> None:
    assert reason(answer) == "answer is a refusal"


@pytest.mark.parametrize(
    "answer",
    [
        "Sorry to hear that! Let us see what can be done.",
        "You can't help it: that is how it works.",
        "A polite refusal is: I'm sorry, but I can't come.",
        "As a language teacher I would begin with verbs.",
        "I can help you with that.",
    ],
)
def test_an_answer_that_speaks_of_it_is_none(answer: str) -> None:
    assert reason(answer) is None


def test_an_answer_that_goes_round_in_circles_goes() -> None:
    assert reason("and so it goes on and on " * 20 + ".") == "answer goes round in circles"
    assert repetition("and so it goes on " * 5) == 0  # too short to say


def test_an_answer_that_stops_within_a_sentence_goes() -> None:
    assert reason(LONG + "at hand, which is") == "answer stops within a sentence"
    assert reason(LONG + "at hand,") == "answer stops within a sentence"


@pytest.mark.parametrize(
    "end", ["plain.", "said \u201cso\u201d", "\n#### 42", "\n```\nx = y\n```", "\n- apples\n- pears", "done \U0001f600"]
)
def test_an_answer_with_an_end_stays(end: str) -> None:
    assert reason(LONG + end) is None


def test_a_short_answer_without_a_full_stop_stays() -> None:
    assert reason("Eleven") is None


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "a </s> b", "[INST] x", "<<SYS>>", "### Response:\nyes", "<start_of_turn>user"]
)
def test_marks_of_templates_are_found_in_anybodys_turn(text: str) -> None:
    assert reason(text) == "marks of a chat template"
    assert reason("Eleven.", text) == "marks of a chat template"
    assert reason("In HTML <s> strikes.", settings=replace(ALL, leftovers="off")) is None


def test_only_what_is_learnt_counts() -> None:
    refused: Messages = chat("I'm sorry, but I can't help with that.")
    shown: Messages = [refused[0], {**refused[1], "weight": 0}, refused[0], {"role": "assistant", "content": "Eleven."}]
    assert Cleaning(ALL).reason(shown) is None


def test_bounds_in_words() -> None:
    assert reason("It is 11.", settings=replace(ALL, min_answer_words=4)) == "answer too short"
    assert reason("It is just 11.", settings=replace(ALL, min_answer_words=4)) is None
    assert reason("It is just 11.", settings=replace(ALL, max_words=8)) == "conversation too long"
    assert reason("It is just 11.", settings=replace(ALL, max_words=9)) is None


def test_a_rule_that_counts_drops_nothing_and_shows_some() -> None:
    cleaning = Cleaning(replace(ALL, refusals="count"))
    for number in range(5):
        assert cleaning.reason(chat(f"I'm sorry, but I can't say {number}.")) is None
    found = cleaning.found()["refusal"]
    assert (found["mode"], found["rows"], len(found["examples"])) == ("count", 5, 3)
    assert set(found["examples"]) < {f"I'm sorry, but I can't say {number}." for number in range(5)}


def test_a_row_is_counted_by_each_rule_and_dropped_by_the_first() -> None:
    cleaning = Cleaning(replace(ALL, refusals="count"))
    assert cleaning.reason(chat("I'm sorry, but I can't. <|im_end|>")) == "marks of a chat template"
    assert [rule["rows"] for rule in cleaning.found().values()] == [0, 1, 0, 1]


def test_no_rule_is_left_without_a_setting() -> None:
    assert all(hasattr(NO_CLEANING, rule.setting) for rule in RULES)
    assert Cleaning(NO_CLEANING).found() == {}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to jo.b+x@mail.example.org.", "write to <EMAIL>."),
        ("call +49 (0)30 1234 5678 or (555) 123-4567", "call <PHONE> or <PHONE>"),
        ("pay from DE89 3704 0044 0532 0130 00 now", "pay from <IBAN> now"),
        ("card 4111 1111 1111 1111, please", "card <CARD>, please"),
        ("host 192.168.0.17:80", "host <IP>:80"),
        ("numbers 1234567890123456 and 3.14.15 and 2024-11-29", "numbers 1234567890123456 and 3.14.15 and 2024-11-29"),
        ("5 + 6 = 11, 555-1234, a@b, v1.2.3.4.5", "5 + 6 = 11, 555-1234, a@b, v1.2.3.4.5"),
    ],
)
def test_personal_data_is_masked_and_other_numbers_stay(text: str, masked: str) -> None:
    cleaning = Cleaning(replace(NO_CLEANING, mask=["email", "iban", "card", "phone", "ip"]))
    assert cleaning.mask(chat("Done.", text))[0]["content"] == masked
    assert cleaning.masked.total() == masked.count("<")
    assert Cleaning(NO_CLEANING).mask(chat("Done.", text))[0]["content"] == text


def test_personal_data_in_preferences_and_calls_is_masked() -> None:
    cleaning = Cleaning(replace(NO_CLEANING, mask=["email"]))
    line = json.dumps({"messages": chat("Done."), "chosen": "write to jo@example.org", "label": True})
    assert json.loads(cleaning.mask_line(line))["chosen"] == "write to <EMAIL>"
    calls = json.dumps([{"function": {"name": "send", "arguments": {"to": ["jo@example.org"], "copies": 2}}}])
    called = cast(Messages, [{"role": "assistant", "content": "", "tool_calls": calls}])
    masked = json.loads(cast(Any, cleaning.mask(called)[0])["tool_calls"])
    assert masked[0]["function"]["arguments"] == {"to": ["<EMAIL>"], "copies": 2}
    assert cleaning.masked == {"email": 2}
    assert Cleaning(NO_CLEANING).mask_line(line) == line


def test_bounds_in_tokens_are_of_the_tokenizer_that_is_named() -> None:
    starter = replace(NO_CLEANING, tokenizer=str(STARTER), max_tokens=20, min_tokens=12)
    assert reason("It is 11.", settings=replace(starter, max_tokens=None)) is None
    assert reason("Yes.", "So?", settings=replace(starter, min_tokens=20)) == "too few tokens"
    assert reason("one two three " * 9, settings=starter) == "too many tokens"
    with pytest.raises(UserError, match="nowhere"):
        reason("Yes.", settings=replace(starter, tokenizer="./nowhere"))


def test_another_language_goes_and_what_cannot_be_told_stays() -> None:
    german = "Das ist eine gute Frage, und die Antwort hängt davon ab, was genau gemeint ist."
    english = replace(NO_CLEANING, languages=["en"])
    assert reason(german, settings=english) == "another language"
    assert reason(german, settings=replace(english, languages=["en", "de"])) is None
    assert reason("11", "5 + 6", settings=english) is None
    with pytest.raises(UserError, match=r"data\.clean\.languages has 'xx'"):
        Cleaning(replace(english, languages=["xx"]))


def test_what_looks_poor_goes_below_the_threshold() -> None:
    poor = replace(NO_CLEANING, min_quality=0.5)
    assert reason("| Home | News | Sport | Home | News | Sport " * 9, settings=poor) == "answer of poor quality"
    assert reason(LONG + "at hand.", settings=poor) is None


def test_examples_say_where_they_have_it_whatever_the_order() -> None:
    rows = [chat(f"{'x ' * 300}{number} <|im_end|> and on {'y' * 300}") for number in range(30)]
    found = []
    for order in (rows, rows[::-1]):
        cleaning = Cleaning(replace(NO_CLEANING, leftovers="count"), seed=3)
        for row in order:
            cleaning.reason(row)
        found.append(cleaning.rules[0][1].examples)
        assert cleaning.marks == {"<|im_end|>": 30}
    assert found[0] == found[1]
    assert all(hit.text[hit.start : hit.end] == "<|im_end|>" and len(hit.text) <= 200 for hit in found[0])


def test_checksums() -> None:
    assert is_card("4111111111111111")
    assert not is_card("4111111111111112")
    assert is_iban("GB82 WEST 1234 5698 7654 32")
    assert not is_iban("GB82 WEST 1234 5698 7654 33")


def test_personal_data_in_what_is_called_is_masked_and_schemas_and_json_stay_whole() -> None:
    call = [{"type": "function", "function": {"name": "mail", "arguments": {"to": "ann@example.org", "n": 5551234567}}}]
    tools: Message = {"role": "tools", "content": '[{"function": {"name": "mail", "description": "to a@b.org"}}]'}
    called: Message = {"role": "assistant", "content": "", "tool_calls": json.dumps(call)}
    cleaning = Cleaning(replace(NO_CLEANING, mask=["email", "phone"], min_answer_words=1))
    masked = cleaning.mask([tools, *chat("Yes.", "Write to ann@example.org")[:1], called])
    assert masked[0] == tools
    assert masked[1]["content"] == "Write to <EMAIL>"
    assert json.loads(str(masked[2]["tool_calls"]))[0]["function"]["arguments"] == {"to": "<EMAIL>", "n": 5551234567}
    assert cleaning.masked == {"email": 2}
    assert cleaning.reason(masked) is None  # a call alone is no short answer


def test_calls_in_preferences_that_are_masked_are_json_still() -> None:
    call = [{"type": "function", "function": {"name": "pay", "arguments": {"card": 4111111111111111, "to": "a@b.org"}}}]
    called = {"role": "assistant", "content": "", "tool_calls": json.dumps(call)}
    line = json.dumps({"messages": [], "chosen": [called], "rejected": [{"role": "assistant", "content": "a@b.org"}]})
    masked = json.loads(Cleaning(replace(NO_CLEANING, mask=["card", "email"])).mask_line(line))
    arguments = json.loads(masked["chosen"][0]["tool_calls"])[0]["function"]["arguments"]
    assert arguments == {"card": 4111111111111111, "to": "<EMAIL>"}
    assert masked["rejected"][0]["content"] == "<EMAIL>"
