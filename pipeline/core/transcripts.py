"""Conversations that stand in one text, each turn under the name of who speaks.

Anthropic's have `Human:` and `Assistant:`; Glaive's, about tools, `USER:`, `ASSISTANT:` and `FUNCTION RESPONSE:`, calls
after `<functioncall>`, and the schemas of the tools at the end of the system prompt.
"""

import json
import re

from pipeline.core.messages import Columns, Message, Messages, as_text
from pipeline.core.tool_calls import read_tools, spoken_calls, with_calls

CHAT_COLUMN = "chat"
HUMAN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
USER = re.compile(r"(?:\A\s*|\n\s*)(USER|ASSISTANT|FUNCTION RESPONSE):")
ROLES = {"human": "user", "user": "user", "assistant": "assistant", "function response": "tool"}
END = "<|endoftext|>"  # of an answer of Glaive's
CALL = re.compile(r"(?P<said>.*)<functioncall>\s*(?P<call>\{.*\})", re.DOTALL)
QUOTED = re.compile(r"\"arguments\":\s*'(?P<arguments>.*)'\s*\}\Z", re.DOTALL)


def human_turns(text: str) -> Messages:
    """Return the turns of a text that begins with a human's; none where it is any other text."""
    return _turns(HUMAN, text)


def is_transcript(columns: Columns) -> bool:
    """Return whether a row has such a text about tools."""
    return isinstance(text := columns.get(CHAT_COLUMN), str) and bool(_turns(USER, text))


def from_transcript(columns: Columns) -> Messages:
    """Return the system prompt of such a row, the tools in it, and its turns.

    Raises:
        UnusableRowError: a call or a tool cannot be read.
    """
    system, tools = _tools_in(as_text(columns.get("system")).strip().removeprefix("SYSTEM:").strip())
    told: Messages = [{"role": "system", "content": system}] if system else []
    turns = _turns(USER, as_text(columns[CHAT_COLUMN]))
    return [*tools, *told, *(_called(turn, tools) for turn in turns)]


def _turns(speaker: re.Pattern[str], text: str) -> Messages:
    before, *parts = speaker.split(text)
    if before or not parts or ROLES[parts[0].lower()] != "user":
        return []
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[name.lower()], "content": said.strip()} for name, said in turns]


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
