"""Anthropic's Messages API, a thin layer over a conversation: what is asked is translated once, and so is the answer.

Content is text, what was thought before it, calls of tools and their results. Images, documents and the tools of
Anthropic's own servers are refused by name.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Literal

from llama.call_stream import Arguments, Said
from llama.errors import RequestError
from llama.thoughts import Parts
from llama.types import Prompt
from serve.engine import Piece
from serve.http.answers import Choice, Json, event
from serve.http.content import Turns, beside, parts_of, read_parts, response_format, text_of, tools_of
from serve.http.error_responses import describe
from serve.http.fields import (
    BLOCK_HARMLESS,
    BLOCK_REFUSED,
    MESSAGES_HARMLESS,
    MESSAGES_REFUSED,
    THINKING_REFUSED,
    check_fields,
)
from serve.http.requests import ChatRequest, Fields, Whole, chat_of
from serve.http.tool_calls import Call

TEXT = {"text": "text"}
# Blocks that are read, by who brings them.
BLOCKS = {"system": ("text",), "user": ("text", "tool_result"), "assistant": ("text", "thinking", "tool_use")}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}  # of tools, and what a chat calls them
SWITCHES = {"enabled": True, "disabled": False, "adaptive": None}

Content = str | list[dict[str, object]]


class Thinking(Fields):
    """Whether the model thinks before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]


class OutputConfig(Fields):
    """How much it does for an answer, and what that must look like."""

    effort: str | None = None
    format: dict[str, object] | None = None


class ToolChoice(Fields):
    """Whether the answer calls a tool, and which."""

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Turn(Fields):
    """What one of the two has said."""

    role: Literal["user", "assistant", "system"]
    content: Content


class CountRequest(Fields):
    """A conversation to read; what only an answer to it would need may stand there, too."""

    model: str
    messages: list[Turn]
    max_tokens: Whole | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    system: Content | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    tools: list[dict[str, object]] | None = None
    tool_choice: ToolChoice | None = None

    def translated(self) -> tuple[ChatRequest, dict[str, str]]:
        """Return it as a chat is asked for, and its fields' names for those of the chat. Raises RequestError."""
        check_fields(self.model_extra, MESSAGES_HARMLESS, MESSAGES_REFUSED)
        turns = Turns(joins=True)
        for where, role, content in self._said():
            _read(turns, role, content, where)
        tools, names = tools_of(self.tools, "custom", "input_schema")
        names |= turns.names | {"reasoning_effort": "output_config.effort", "enable_thinking": "thinking"}
        names |= {"response_format.json_schema": "output_config.format", "response_format": "output_config.format"}
        names |= {"stop": "stop_sequences"}
        fields = {"messages": turns.messages(), "tools": tools, **self._chat_fields()}
        return chat_of(fields, names), names

    def _said(self) -> Iterator[tuple[str, str, Content]]:
        if self.system:
            yield "system", "system", self.system
        for place, turn in enumerate(self.messages):
            check_fields(turn.model_extra, frozenset(), {}, f"messages[{place}].")
            yield f"messages[{place}].content", turn.role, turn.content

    def _chat_fields(self) -> dict[str, object]:
        named = ("model", "max_tokens", "stream", "temperature", "top_p", "top_k")
        fields: dict[str, object] = {name: getattr(self, name) for name in named} | {"stop": self.stop_sequences}
        if self.thinking:
            check_fields(self.thinking.model_extra, frozenset(), THINKING_REFUSED, "thinking.")
            fields["enable_thinking"] = SWITCHES[self.thinking.type]
        if self.output_config:
            check_fields(self.output_config.model_extra, frozenset(), {}, "output_config.")
            fields["reasoning_effort"] = self.output_config.effort
            fields["response_format"] = response_format(self.output_config.format, name="answer")
        if choice := self.tool_choice:
            check_fields(choice.model_extra, frozenset(), {}, "tool_choice.")
            if choice.name is not None and choice.type != "tool":
                raise RequestError(f"tool_choice.name: {choice.type} names no tool.", param="tool_choice.name")
            fields["tool_choice"] = CHOICES.get(choice.type, {"type": "function", "name": choice.name})
            fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
        return fields


class MessagesRequest(CountRequest):
    """A conversation to answer."""

    max_tokens: Whole


def _read(turns: Turns, role: str, content: Content, where: str) -> None:
    """Add what one of the two brings. Raises RequestError for a block that is not theirs, or not known."""
    turn = where.removesuffix(".content")
    if isinstance(content, str) or not content:
        turns.say(role, str(content or ""), turn)
        return
    for param, kind, block in parts_of(content, BLOCKS[role], where):
        match kind:
            case "tool_use":
                if not isinstance(block.get("input"), dict):
                    raise RequestError(f"{param}.input: an object is required.", "invalid_type", f"{param}.input")
                turns.call(block, "id", "input", param)
            case "tool_result":
                turns.answer(block | {"content": _result(block.get("content"), param)}, "tool_use_id", "content", param)
            case _:
                text = text_of(block, kind, param)
                check_fields(beside(block, "type", kind), BLOCK_HARMLESS, BLOCK_REFUSED, f"{param}.")
                turns.say(role, "" if kind == "thinking" else text, turn, text if kind == "thinking" else "")


def _result(content: object, where: str) -> str:
    """Return what a tool came to; nothing, where nothing is said of it. Raises RequestError for what is no text."""
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(text for _, text in read_parts(content, TEXT, f"{where}.content", BLOCK_HARMLESS, BLOCK_REFUSED))


class MessageWriter:
    """Writes one answer as Anthropic's are: blocks of what is thought, said and called."""

    def __init__(self, request: ChatRequest, prompts: Sequence[Prompt]) -> None:
        """For a chat, and the one prompt that it has."""
        self._choice = Choice(0, prompts[0], split=True)
        self._model, self._id = request.model, f"msg_{uuid.uuid4().hex}"
        self._begun, self._blocks, self._kind = False, 0, ""  # the kind of the block that is open

    def take(self, _: int, piece: Piece) -> Parts:
        """Add a piece; return what it adds."""
        return self._choice.take(piece)

    def whole(self) -> Json:
        """Return the answer, when it has ended."""
        thought, said = self._choice.thought, self._choice.said
        blocks = [_block("thinking", thought)] if thought else []
        calls = self._choice.tools.calls
        if said or not (blocks or calls):
            blocks.append(_block("text", said))
        blocks += [_called(call) | {"input": _input(call)} for call in calls]
        return self._message(blocks, self._stop()) | {"usage": self._usage()}

    def frames(self, index: int, piece: Piece) -> str:
        """Return what a stream tells of the next piece."""
        parts = self.take(index, piece)
        frames = "" if self._begun else self._start()
        if parts.thought:
            frames += self._opened("thinking") + self._delta("thinking", thinking=parts.thought)
        for told in self._choice.told():
            match told:
                case Said(text=text):
                    frames += self._opened("text") + self._delta("text", text=text)
                case Call():
                    frames += self._begin("tool_use", _called(told))
                case Arguments(text=text):
                    frames += self._delta("input_json", partial_json=text)
        return frames

    def end(self) -> str:
        """Return how a stream ends."""
        frames = "" if self._blocks else self._opened("text")
        usage = {"output_tokens": self._choice.last.tokens}
        return frames + self._closed() + _told("message_delta", delta=self._stop(), usage=usage) + _told("message_stop")

    def failed(self, error: Exception) -> str:
        """Return how it ends where something went wrong."""
        return event(describe(error).message_body(), "error")

    def _start(self) -> str:
        self._begun = True
        usage = self._usage() | {"output_tokens": 0}
        message = self._message([], {"stop_reason": None, "stop_sequence": None}) | {"usage": usage}
        return _told("message_start", message=message)

    def _opened(self, kind: str) -> str:
        """Return what begins a block of a kind, unless it is open; before it ends the one that is."""
        return "" if kind == self._kind else self._begin(kind, _block(kind, ""))

    def _begin(self, kind: str, block: Json) -> str:
        frames = self._closed() if self._kind else ""
        self._kind, self._blocks = kind, self._blocks + 1
        return frames + _told("content_block_start", index=self._blocks - 1, content_block=block)

    def _delta(self, kind: str, **more: str) -> str:
        return _told("content_block_delta", index=self._blocks - 1, delta={"type": f"{kind}_delta", **more})

    def _closed(self) -> str:
        return _told("content_block_stop", index=self._blocks - 1)

    def _message(self, blocks: list[Json], stop: Json) -> Json:
        head: Json = {"id": self._id, "type": "message", "role": "assistant"}
        head["model"] = self._choice.by.get("model", self._model)
        return head | {"content": blocks} | stop

    def _stop(self) -> Json:
        last = self._choice.last
        stop = last.stopped_by if isinstance(last.stopped_by, str) else None
        reason = {"length": "max_tokens", "tool_calls": "tool_use"}.get(str(self._choice.finish), "end_turn")
        return {"stop_reason": "stop_sequence" if stop else reason, "stop_sequence": stop}

    def _usage(self) -> Json:
        """Return the tokens; what was known of the prompt counts by itself."""
        last = self._choice.last
        known = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": last.cached}
        return {"input_tokens": last.prompt - last.cached, **known, "output_tokens": last.tokens}


def _block(kind: str, text: str) -> Json:
    return {"type": kind, kind: text, **({"signature": ""} if kind == "thinking" else {})}


def _called(call: Call) -> Json:
    """Return the block of a call as a stream begins it."""
    return {"type": "tool_use", "id": call.number, "name": call.name, "input": {}}


def _input(call: Call) -> object:
    """Return what a call brings; nothing, where the answer was cut within it."""
    try:
        return json.loads(call.arguments)
    except (ValueError, RecursionError):
        return {}


def _told(kind: str, **content: object) -> str:
    return event({"type": kind, **content}, kind)
