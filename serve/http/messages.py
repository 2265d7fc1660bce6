"""Anthropic's Messages API, a thin layer over a conversation: what is asked is translated once, and so is the answer.

Content is text, and what was thought before it. Tools, images and documents are refused by name.
"""

import uuid
from collections.abc import Iterator, Sequence
from typing import Literal

from llama.thoughts import Parts
from llama.types import Prompt
from serve.engine import Piece
from serve.http.answers import Choice, Json, event
from serve.http.content import read_parts, response_format
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

BLOCKS = {"text": "text", "thinking": "thinking"}  # what is known of a message's content, and the key of its text
SWITCHES = {"enabled": True, "disabled": False, "adaptive": None}

Content = str | list[dict[str, object]]


class Thinking(Fields):
    """Whether the model thinks before it answers."""

    type: Literal["enabled", "disabled", "adaptive"]


class OutputConfig(Fields):
    """How much it does for an answer, and what that must look like."""

    effort: str | None = None
    format: dict[str, object] | None = None


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

    def translated(self) -> tuple[ChatRequest, dict[str, str]]:
        """Return it as a chat is asked for, and its fields' names for those of the chat. Raises RequestError."""
        check_fields(self.model_extra, MESSAGES_HARMLESS, MESSAGES_REFUSED)
        messages: list[dict[str, str]] = []
        names = {"reasoning_effort": "output_config.effort"}
        names |= {"response_format.json_schema": "output_config.format", "response_format": "output_config.format"}
        names |= {"enable_thinking": "thinking", "stop": "stop_sequences"}
        for where, role, content in self._said():
            text, thought = _read(content, where)
            if messages and messages[-1]["role"] == role:  # Anthropic takes them for one
                before = messages.pop()
                text = "\n".join(filter(None, [before["content"], text]))
                thought = "\n".join(filter(None, [before.get("reasoning_content", ""), thought]))
            names.setdefault(f"messages[{len(messages)}]", where.removesuffix(".content"))
            messages.append({"role": role, "content": text} | ({"reasoning_content": thought} if thought else {}))
        return chat_of({"messages": messages, **self._chat_fields()}, names), names

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
        return fields


class MessagesRequest(CountRequest):
    """A conversation to answer."""

    max_tokens: Whole


def _read(content: Content, where: str) -> tuple[str, str]:
    """Return what is said and what is thought in a content. Raises RequestError for what is neither."""
    if isinstance(content, str):
        return content, ""
    parts = read_parts(content, BLOCKS, where, BLOCK_HARMLESS, BLOCK_REFUSED)
    said, thought = ("\n".join(text for kind, text in parts if kind == wanted) for wanted in ("text", "thinking"))
    return said, thought


class MessageWriter:
    """Writes one answer as Anthropic's are: blocks of what is thought and said."""

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
        if said or not blocks:
            blocks.append(_block("text", said))
        return self._message(blocks, self._stop()) | {"usage": self._usage()}

    def frames(self, index: int, piece: Piece) -> str:
        """Return what a stream tells of the next piece."""
        parts = self.take(index, piece)
        frames = "" if self._begun else self._start()
        for kind, text in (("thinking", parts.thought), ("text", parts.said)):
            if text:
                delta = {"type": f"{kind}_delta", BLOCKS[kind]: text}
                frames += self._opened(kind)
                frames += _told("content_block_delta", index=self._blocks - 1, delta=delta)
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
        if kind == self._kind:
            return ""
        frames = self._closed() if self._kind else ""
        self._kind, self._blocks = kind, self._blocks + 1
        return frames + _told("content_block_start", index=self._blocks - 1, content_block=_block(kind, ""))

    def _closed(self) -> str:
        return _told("content_block_stop", index=self._blocks - 1)

    def _message(self, blocks: list[Json], stop: Json) -> Json:
        head: Json = {"id": self._id, "type": "message", "role": "assistant", "model": self._model}
        return head | {"content": blocks} | stop

    def _stop(self) -> Json:
        last = self._choice.last
        stop = last.stopped_by if isinstance(last.stopped_by, str) else None
        reason = "stop_sequence" if stop else {"length": "max_tokens"}.get(str(last.finish), "end_turn")
        return {"stop_reason": reason, "stop_sequence": stop}

    def _usage(self) -> Json:
        """Return the tokens; what was known of the prompt counts by itself."""
        last = self._choice.last
        known = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": last.cached}
        return {"input_tokens": last.prompt - last.cached, **known, "output_tokens": last.tokens}


def _block(kind: str, text: str) -> Json:
    return {"type": kind, BLOCKS[kind]: text, **({"signature": ""} if kind == "thinking" else {})}


def _told(kind: str, **content: object) -> str:
    return event({"type": kind, **content}, kind)
