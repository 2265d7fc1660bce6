"""Conversations that stand in one text, each turn under the name of who speaks.

Anthropic's have `Human:` and `Assistant:`; Glaive's, about tools, `USER:`, `ASSISTANT:` and `FUNCTION RESPONSE:`, calls
after `<functioncall>`, and the schemas of the tools at the end of the system prompt. Others are what a chat template
wrote: ChatML, Llama's, Gemma's, Guanaco's `### Human:`, or Alpaca's `### Instruction:`.
"""

import json
import re

from pipeline.core.messages import Columns, Message, Messages, as_text
from pipeline.core.tool_calls import read_tools, spoken_calls, with_calls

CHAT_COLUMN, TEXT_COLUMN = "chat", "text"
HUMAN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
USER = re.compile(r"(?:\A\s*|\n\s*)(USER|ASSISTANT|FUNCTION RESPONSE):")
ROLES = {"human": "user", "user": "user", "assistant": "assistant", "function response": "tool"}
END = "<|endoftext|>"  # of an answer of Glaive's
CALL = re.compile(r"(?P<said>.*)<functioncall>\s*(?P<call>\{.*\})", re.DOTALL)
ASKING = re.compile(r"(?:\A\s*|\n\s{0,9})(Human|Assistant):")  # in a prompt that ends where the assistant is to speak
# What a turn is in a text that a template wrote, by the token or word that each begins with.
WRITTEN = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<\|im_start\|>(?P<role>\w+)\n(?P<said>.*?)(?:<\|im_end\|>|\Z)\s*",
        r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>(?P<said>.*?)(?:<\|eot_id\|>|\Z)\s*",
        r"<start_of_turn>(?P<role>\w+)\n(?P<said>.*?)(?:<end_of_turn>|\Z)\s*",
        r"(?:<s>)?\s{0,9}(?P<role>\[/?INST\])(?P<said>.*?)(?:</s>\s{0,9})?(?=(?:<s>)?\s{0,9}\[/?INST\]|\Z)",
        r"### ?(?P<role>Human|Assistant):(?P<said>.*?)(?=### ?(?:Human|Assistant):|\Z)",
    )
)
WRITTEN_ROLES = {
    **{name: name for name in ("system", "user", "assistant", "tool")},
    "human": "user",
    "[inst]": "user",
    "model": "assistant",
    "[/inst]": "assistant",
}
BEGINNINGS = re.compile(
    r"(?:(?:<s>|<bos>|<\|begin_of_text\|>)\s*)?(?=<\|im_start|<\|start_header|<start_of_turn|\[INST|### ?Human:)"
)
ALPACA = re.compile(
    r"(?P<system>[^#]{0,500})### Instruction:\n(?P<asked>.*?)(?:\n{1,9}### Input:\n(?P<input>.*?))?"
    r"\n{1,9}### Response:(?P<said>.*?)(?:</s>|<\|end_?of_?text\|>)?",
    re.DOTALL,
)
LLAMA_SYSTEM = re.compile(r"\s*<<SYS>>(?P<system>.*?)<</SYS>>(?P<said>.*)", re.DOTALL)
QUOTED = re.compile(r"\"arguments\":\s*'(?P<arguments>.*)'\s*\}\Z", re.DOTALL)


def human_turns(text: str) -> Messages:
    """Return the turns of a text that begins with a human's; none where it is any other text."""
    return _turns(HUMAN, text)


def asked_turns(text: str) -> Messages:
    """Return the turns of a prompt that ends where the assistant is to speak; none where it is any other text."""
    turns = _turns(ASKING, text) if text.rstrip().endswith("Assistant:") else []
    return turns[:-1]


def is_transcript(columns: Columns) -> bool:
    """Return whether a row has such a text about tools, or one alone that a template wrote."""
    if list(columns) == [TEXT_COLUMN]:
        return isinstance(text := columns[TEXT_COLUMN], str) and bool(_written_turns(text))
    return isinstance(text := columns.get(CHAT_COLUMN), str) and bool(_turns(USER, text))


def from_transcript(columns: Columns) -> Messages:
    """Return the turns of such a row, and its system prompt and the tools in it.

    Raises:
        UnusableRowError: a call or a tool cannot be read.
    """
    return _written_turns(as_text(columns[TEXT_COLUMN])) if TEXT_COLUMN in columns else _from_glaive(columns)


def _from_glaive(columns: Columns) -> Messages:
    system, tools = _tools_in(as_text(columns.get("system")).strip().removeprefix("SYSTEM:").strip())
    told: Messages = [{"role": "system", "content": system}] if system else []
    turns = _turns(USER, as_text(columns.get(CHAT_COLUMN)))
    return [*tools, *told, *(_called(turn, tools) for turn in turns)]


def _turns(speaker: re.Pattern[str], text: str) -> Messages:
    before, *parts = speaker.split(text)
    if before or not parts or ROLES[parts[0].lower()] != "user":
        return []
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[name.lower()], "content": said.strip()} for name, said in turns]


def _written_turns(text: str) -> Messages:
    """Return the turns of a text that a template wrote, if that is all of it and the assistant speaks."""
    text = text.strip()
    if (begun := BEGINNINGS.match(text)) is None:
        return _alpaca_turns(text)
    for turn in WRITTEN:
        messages: Messages = []
        at = begun.end()
        while (found := turn.match(text, at)) and found["role"].lower() in WRITTEN_ROLES and found.end() > at:
            messages.append({"role": WRITTEN_ROLES[found["role"].lower()], "content": found["said"].strip()})
            at = found.end()
        if at == len(text) and any(message["role"] == "assistant" for message in messages):
            return _with_llama_system(messages)
    return []


def _alpaca_turns(text: str) -> Messages:
    """Return the one exchange of a text by Alpaca's template, whose first sentences are the system prompt."""
    found = ALPACA.fullmatch(text) if text.count("### Instruction:") == 1 == text.count("### Response:") else None
    if found is None:
        return []
    told, asked, more, said = (part.strip() for part in found.groups(default=""))
    system: Messages = [{"role": "system", "content": told}] if told else []
    question = "\n\n".join(filter(None, (asked, more)))
    return [*system, {"role": "user", "content": question}, {"role": "assistant", "content": said}]


def _with_llama_system(messages: Messages) -> Messages:
    """Return messages with the system prompt that Llama 2's template writes into the first turn before it."""
    found = LLAMA_SYSTEM.fullmatch(messages[0]["content"])
    if found is None:
        return messages
    asked: Message = {"role": "user", "content": found["said"].strip()}
    return [{"role": "system", "content": found["system"].strip()}, asked, *messages[1:]]


def _tools_in(system: str) -> tuple[str, Messages]:
    """Return a system prompt without the schemas that end it, and these; as it is where it ends otherwise."""
    before, brace, rest = system.partition("{")
    tools, decoder, at, rest = [], json.JSONDecoder(), 0, brace + rest
    try:
        while rest[at:].strip():
            at += len(rest[at:]) - len(rest[at:].lstrip())
            tool, at = decoder.raw_decode(rest, at)
            tools.append(tool)
        return (before.strip(), read_tools(tools)) if tools else (system, [])
    except (ValueError, RecursionError):
        return system, []


def _called(turn: Message, tools: Messages) -> Message:
    """Return a turn with its calls in a field of their own, where there are some that can be read."""
    if turn["role"] != "assistant":
        return turn
    text = turn["content"].removesuffix(END).strip()
    found = CALL.fullmatch(text)
    calls = spoken_calls(_plain(found["call"])) if found else []
    if found is None or not calls:
        return {"role": "assistant", "content": text}
    return with_calls({"role": "assistant", "content": found["said"].strip()}, calls, tools)


def _plain(call: str) -> str:
    """Return a call whose arguments are JSON between single quotes as JSON."""
    return QUOTED.sub(lambda found: f'"arguments": {found["arguments"]}}}', call)
