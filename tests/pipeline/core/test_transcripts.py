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


ASKED: Messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
TOLD_ASKED: Messages = [{"role": "system", "content": "S"}, *ASKED]
WRITTEN = [
    (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n",
        TOLD_ASKED,
    ),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo", ASKED),
    ("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYo<end_of_turn>\n", ASKED),
    (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>",
        ASKED,
    ),
    ("<s>[INST] Hi [/INST] Yo </s>", ASKED),
    ("<s>[INST] Hi [/INST] Yo </s><s>[INST] Hi [/INST] Yo </s>", ASKED * 2),
    ("[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST] Yo", TOLD_ASKED),
    ("S\n\n### Instruction:\nHi\n\n### Response:\nYo</s>", TOLD_ASKED),
    (
        "### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n3<|endoftext|>",
        [{"role": "user", "content": "Add.\n\n1, 2"}, {"role": "assistant", "content": "3"}],
    ),
    ("### Human: Hi### Assistant: Yo### Human: Hi### Assistant: Yo", ASKED * 2),
]


@pytest.mark.parametrize(("text", "expected"), WRITTEN)
def test_what_a_template_wrote_is_read_as_the_turns_that_it_was(text: str, expected: Messages) -> None:
    assert detect({"text": text}) == "transcript"
    assert read(text=text) == expected
    assert convert({"text": text}, "text") == [{"role": "text", "content": text}]


@pytest.mark.parametrize(
    "text",
    [
        "As in <|im_start|>user\nHi<|im_end|>",
        "<|im_start|>user\nHi<|im_end|>\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\nThe end.",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>critic\nYo<|im_end|>",
        "### Human: the last of them\nHe walked.",
        "[INST] is how Llama 2's prompts begin.",
        "### Instruction:\nHi\n\n### Response:\nYo\n\n### Instruction:\nHi\n\n### Response:\nYo",
        "# Prompts\n\n### Instruction:\nHi\n\n### Response:\nYo",
    ],
)
def test_a_text_that_is_more_than_turns_or_has_no_answer_stays_a_text(text: str) -> None:
    assert detect({"text": text}) == "text"


def test_a_prompt_that_ends_where_the_assistant_speaks_is_the_turns_before() -> None:
    earlier = "Human:Hi\nAssistant:Yo\nHuman:Human: who?\nAssistant:"
    answer: Messages = [{"role": "user", "content": "Human: who?"}, {"role": "assistant", "content": "You."}]
    assert read(instruction=earlier, output="You.") == [ASKED[0], {**ASKED[1], "weight": 0}, *answer]
    assert read(prompt="\n\nHuman: Hi\n\nAssistant:", completion="Yo") == ASKED
    for other in ("Human: Hi", "Say Human: Hi\nAssistant:"):
        assert read(prompt=other, completion="Yo")[0]["content"] == other


@pytest.mark.parametrize("name", ["transcript", "calls"])
def test_a_row_without_what_a_format_reads_is_unusable(name: str) -> None:
    with pytest.raises(UnusableRowError):
        convert({"question": "Hi", "answer": "Yo"}, name)
