"""Conversations in one text, among them Glaive's about tools."""

import json
from typing import Any

import pytest

from pipeline.core.formats import UnusableRowError, convert, detect, read_row
from pipeline.core.messages import Messages

TOOL = {"name": "rate", "description": "The rate.", "parameters": {"type": "object", "properties": {}}}
TOLD = "SYSTEM: You have functions. Use them if required -\n"
CALL = '<functioncall> {"name": "rate", "arguments": \'{"base": "it\'s {USD}"}\'} <|endoftext|>'
CHAT = (
    f"USER: What is it?\nUSER is me.\n\n\nASSISTANT: {CALL}\n\n\nFUNCTION RESPONSE: {{\"rate\": 2}}\n\n\n"
    "ASSISTANT: Two. <|endoftext|>\n\n\n"
)  # fmt: skip


def read(**row: Any) -> Messages:
    return convert(row, str(detect(row)))


def test_glaives_transcripts_have_tools_calls_and_results() -> None:
    row = {"system": f"{TOLD}{json.dumps(TOOL, indent=4)}\n\n{json.dumps(TOOL)}\n", "chat": CHAT}
    assert detect(row) == "transcript"
    converted = read_row(row, "transcript")
    tools, told, asked, called, result, answer = converted.messages
    assert json.loads(tools["content"]) == [{"type": "function", "function": TOOL}] * 2
    assert told == {"role": "system", "content": "You have functions. Use them if required -"}
    assert asked["content"] == "What is it?\nUSER is me."
    assert called["content"] == ""
    assert json.loads(str(called["tool_calls"]))[0]["function"] == {"name": "rate", "arguments": {"base": "it's {USD}"}}
    assert result == {"role": "tool", "content": '{"rate": 2}'}
    assert answer == {"role": "assistant", "content": "Two."}
    assert converted.unused == frozenset()


@pytest.mark.parametrize("call", ['<functioncall> {"name": "rate"}', '{"arguments": {}, "name": "rate"}'])
@pytest.mark.parametrize("words", ["", "Let me see. "])
def test_calls_may_lack_arguments_and_stand_behind_words(call: str, words: str) -> None:
    mark = "" if call.startswith("<") else "<functioncall>"
    _, called = read(chat=f"USER: ?\n\n\nASSISTANT: {words}{mark}{call}")
    assert called["content"] == words.strip()
    assert json.loads(str(called["tool_calls"]))[0]["function"] == {"name": "rate", "arguments": {}}


@pytest.mark.parametrize("call", ["<functioncall> {half", '<functioncall> {"arguments": {}}', "{}"])
def test_what_cannot_be_read_as_a_call_is_text(call: str) -> None:
    assert read(chat=f"USER: ?\n\n\nASSISTANT: {call} <|endoftext|>")[1] == {"role": "assistant", "content": call}


@pytest.mark.parametrize("system", [TOLD + "{half", TOLD + '{"a": 1}', TOLD + "{} and more", "You are {kind}."])
def test_a_system_prompt_that_ends_otherwise_stays_as_it_is(system: str) -> None:
    first = read(system=system, chat=CHAT)[0]
    assert first == {"role": "system", "content": system.removeprefix("SYSTEM:").strip()}


def test_a_chat_of_other_kinds_is_no_transcript() -> None:
    for chat in ("Hello", "ASSISTANT: Hi", "He said\nUSER: Hi\nASSISTANT: Yo", ["USER: Hi"], None, ""):
        assert detect({"chat": chat}) is None
    with pytest.raises(UnusableRowError, match=r"^roles do not alternate$"):
        read(chat="USER: a\n\n\nUSER: b\n\n\nASSISTANT: c")
