"""OpenAI's Responses API, a thin layer over a conversation: what is asked is translated once, and so is the answer.

Nothing is stored, so that each request brings its whole conversation. Images, files and the tools of OpenAI's own
servers are refused by name.
"""

import time
import uuid
from collections.abc import Mapping, Sequence

from llama.call_stream import Arguments, Said
from llama.errors import RequestError
from llama.model import Scored
from llama.thoughts import Parts
from llama.types import Prompt, Sampling
from serve.engine import Piece
from serve.http.answers import Choice, Json, event, told_chances
from serve.http.content import Turns, beside, read_parts, response_format, text_of, tools_of, unsupported
from serve.http.error_responses import describe
from serve.http.fields import (
    ITEM_HARMLESS,
    PART_HARMLESS,
    REASONING_ITEM_REFUSED,
    REASONING_REFUSED,
    RESPONSES_HARMLESS,
    RESPONSES_REFUSED,
    STREAM_HARMLESS,
    check_fields,
)
from serve.http.requests import ChatRequest, Fields, Whole, chat_of
from serve.http.tool_calls import Call

ROLES = ("user", "assistant", "system", "developer")
# Parts of what is said and thought that are read, and the key of their text.
SAID = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
THOUGHT = {"reasoning_text": "text", "summary_text": "text"}
ITEMS = ("message", "reasoning", "function_call", "function_call_output")  # that are read
# Kinds of items that are written, what grows in each (its one part, or its arguments), and how their ids begin.
GROWING = {"reasoning": "reasoning_text", "message": "output_text", "function_call": "function_call_arguments"}
IDS = {"reasoning": "rs", "message": "msg", "function_call": "fc"}
LOGPROBS = "message.output_text.logprobs"
INCLUDED = (LOGPROBS, "reasoning.encrypted_content")  # the latter is there in plain


class Reasoning(Fields):
    """How much is thought before the answer."""

    effort: str | None = None


class Text(Fields):
    """What the answer must look like."""

    format: dict[str, object] | None = None
    verbosity: str | None = None


class ResponsesRequest(Fields):
    """A conversation to answer."""

    model: str
    input: str | list[dict[str, object]]
    instructions: str | None = None
    max_output_tokens: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Whole | None = None
    include: list[str] | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None
    tools: list[dict[str, object]] | None = None
    tool_choice: str | dict[str, object] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None
    stream_options: dict[str, object] | None = None

    def translated(self) -> tuple[ChatRequest, dict[str, str]]:
        """Return it as a chat is asked for, and its fields' names for those of the chat. Raises RequestError."""
        self._check()
        turns = self._turns()
        tools, names = tools_of(self.tools, "function", "parameters")
        names |= turns.names | {"max_tokens": "max_output_tokens", "logprobs": "top_logprobs"}
        names |= {"response_format.json_schema": "text.format", "response_format": "text.format"}
        names |= {"reasoning_effort": "reasoning.effort"}
        names |= {"verbosity": "text.verbosity", "messages": "input"}
        reasoning, text = self.reasoning or Reasoning(), self.text or Text()
        fields: dict[str, object] = {
            "model": self.model,
            "messages": turns.messages(),
            "add_generation_prompt": True,  # an assistant's turn at the end is whole
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "logprobs": self.top_logprobs is not None or LOGPROBS in (self.include or ()),
            "top_logprobs": self.top_logprobs,
            "reasoning_effort": reasoning.effort,
            "response_format": response_format(text.format),
            "verbosity": text.verbosity,
            "tools": tools,
            "tool_choice": self.tool_choice,
            "parallel_tool_calls": self.parallel_tool_calls,
            "stream": self.stream,
        }
        return chat_of(fields, names), names

    def _check(self) -> None:
        check_fields(self.model_extra, RESPONSES_HARMLESS, RESPONSES_REFUSED)
        check_fields(self.stream_options, STREAM_HARMLESS, {}, "stream_options.")
        reasoning, text = self.reasoning or Reasoning(), self.text or Text()
        check_fields(reasoning.model_extra, frozenset(), REASONING_REFUSED, "reasoning.")
        check_fields(text.model_extra, frozenset(), {}, "text.")
        for place, name in enumerate(self.include or ()):
            if name not in INCLUDED:
                raise unsupported(f"include[{place}]", name, INCLUDED)

    def _turns(self) -> Turns:
        turns = Turns(joins=False)
        if self.instructions is not None:
            turns.say("system", self.instructions, "instructions")
        if isinstance(self.input, str):
            turns.say("user", self.input, "input")
            return turns
        thought, thought_at = "", ""
        for place, item in enumerate(self.input):
            where, kind = f"input[{place}]", str(item.get("type", "message"))
            if kind == "reasoning":
                thought, thought_at = _thought(item, where), where
            elif kind == "message":
                role, said = _message(item, where)
                turns.say(role, said, where, thought if role == "assistant" else "")
                thought = "" if role == "assistant" else thought
            elif kind == "function_call":
                if thought:
                    turns.say("assistant", "", where, thought)
                    thought = ""
                turns.call(item, "call_id", "arguments", where)
            elif kind == "function_call_output":
                output = _joined(item.get("output"), SAID, f"{where}.output")
                turns.answer(item | {"output": output}, "call_id", "output", where)
            else:
                raise unsupported(where, kind, ITEMS)
        if thought:
            why = f"{thought_at}: what was thought needs the assistant's message or call behind it."
            raise RequestError(why, param=thought_at)
        return turns


def _message(item: Mapping[str, object], where: str) -> tuple[str, str]:
    """Return who said something, and what. Raises RequestError."""
    check_fields(beside(item, "type", "role", "content"), ITEM_HARMLESS, {}, f"{where}.")
    role = text_of(item, "role", where)
    if role not in ROLES:
        raise RequestError(f"{where}.role must be {', '.join(ROLES)}, not {role[:50]!a}.", param=f"{where}.role")
    return role, _joined(item.get("content"), SAID, f"{where}.content")


def _thought(item: Mapping[str, object], where: str) -> str:
    """Return what was thought: in full, else its summary. Raises RequestError for what only its maker can read."""
    known = beside(item, "type", "content", "summary")
    check_fields(known, ITEM_HARMLESS, REASONING_ITEM_REFUSED, f"{where}.")
    parts = {name: _joined(item.get(name) or [], THOUGHT, f"{where}.{name}") for name in ("content", "summary")}
    return parts["content"] or parts["summary"]


def _joined(content: object, kinds: Mapping[str, str], where: str) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(text for _, text in read_parts(content, kinds, where, PART_HARMLESS, {}))


class ResponseWriter:
    """Writes one answer as a response: items of what is thought, said and called."""

    def __init__(self, asked: ResponsesRequest, request: ChatRequest, prompts: Sequence[Prompt]) -> None:
        """For what was asked, the chat that it is, and the one prompt of that."""
        self._asked, self._request = asked, request
        self._choice = Choice(0, prompts[0], split=True)
        self._id, self._created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self._items: list[Json] = []  # that are whole
        self._kind, self._item_id, self._text = "", "", ""  # of the item that is being written
        self._call: Call | None = None  # that it is
        self._scored: list[Scored] = []  # tokens of the message
        self._untold = 0  # of those, in a stream
        self._number = 0

    def take(self, _: int, piece: Piece) -> Parts:
        """Add a piece; return what it adds."""
        thought_before = self._choice.thinks
        parts = self._choice.take(piece)
        if piece.scored and not (thought_before or self._choice.thinks or self._choice.tools.calls):
            self._scored.append(piece.scored)
            self._untold += 1
        return parts

    def whole(self) -> Json:
        """Return the answer, when it has ended."""
        calls = self._choice.tools.calls
        told: list[tuple[str, str, Call | None]] = [("reasoning", self._choice.thought, None)]
        told += [("message", self._choice.said, None), *(("function_call", call.arguments, call) for call in calls)]
        told = [each for each in told if each[1] or each[2]] or [("message", "", None)]
        for place, (kind, text, call) in enumerate(told):
            self._kind, self._item_id, self._text, self._call = kind, _new_id(kind), text, call
            self._items.append(self._item(self._status if place == len(told) - 1 else "completed"))
        return self._response(self._status)

    def frames(self, index: int, piece: Piece) -> str:
        """Return what a stream tells of the next piece."""
        parts = self.take(index, piece)
        frames = "" if self._number else self._start()
        if parts.thought:
            frames += self._opened("reasoning") + self._grown(parts.thought)
        for told in self._choice.told():
            match told:
                case Said(text=text):
                    frames += self._opened("message") + self._grown(text)
                case Call():
                    frames += self._begin("function_call", told)
                case Arguments(text=text):
                    frames += self._grown(text)
        return frames

    def end(self) -> str:
        """Return how a stream ends."""
        frames = "" if self._kind else self._opened("message")
        frames += self._closed(self._status)
        return frames + self._told(f"response.{self._status}", response=self._response(self._status))

    def failed(self, error: Exception) -> str:
        """Return how it ends where something went wrong."""
        failure = describe(error)
        code = failure.code or ("server_error" if failure.status >= 500 else "invalid_prompt")
        told = {"code": code, "message": failure.message}
        frames = "" if self._number else self._start()
        frames += self._told("error", **told, param=failure.param)
        return frames + self._told("response.failed", response=self._response("failed") | {"error": told})

    def _start(self) -> str:
        response = self._response("in_progress")
        return self._told("response.created", response=response) + self._told("response.in_progress", response=response)

    def _opened(self, kind: str) -> str:
        """Return what begins an item of a kind, unless it is open; before it ends the one that is."""
        return "" if kind == self._kind else self._begin(kind)

    def _begin(self, kind: str, call: Call | None = None) -> str:
        frames = self._closed("completed") if self._kind else ""
        self._kind, self._item_id, self._text, self._call = kind, _new_id(kind), "", call
        item = self._item("in_progress")
        if call:
            return frames + self._told("response.output_item.added", item=item)
        frames += self._told("response.output_item.added", item=item | {"content": []})
        return frames + self._told("response.content_part.added", part=self._part())

    def _grown(self, text: str) -> str:
        self._text += text
        return self._told(f"response.{GROWING[self._kind]}.delta", delta=text, **self._chances())

    def _closed(self, status: str) -> str:
        item, done = self._item(status), f"response.{GROWING[self._kind]}.done"
        if self._call:
            frames = self._told(done, name=self._call.name, arguments=self._text)
        else:
            frames = self._told(done, text=self._text, **self._chances(all_of_them=True))
            frames += self._told("response.content_part.done", part=self._part())
        frames += self._told("response.output_item.done", item=item)
        self._items.append(item)
        return frames

    def _told(self, kind: str, **content: object) -> str:
        """Return one event, numbered, with where it belongs."""
        place: Json = {}
        if not {"response", "code"} & content.keys():
            place["output_index"] = len(self._items)
            if "item" not in content:
                place |= {"item_id": self._item_id} if self._call else {"item_id": self._item_id, "content_index": 0}
        self._number += 1
        return event({"type": kind, "sequence_number": self._number - 1, **place, **content}, kind)

    def _chances(self, all_of_them: bool = False) -> dict[str, list[Json]]:
        """Return how likely the message's tokens were: those that have not been told, or all."""
        if self._kind != "message":
            return {}
        untold, self._untold = self._untold, 0
        return {"logprobs": told_chances(self._scored if all_of_them else self._scored[len(self._scored) - untold :])}

    def _item(self, status: str) -> Json:
        item: Json = {"id": self._item_id, "type": self._kind, "status": status}
        if self._call:
            return item | {"call_id": self._call.number, "name": self._call.name, "arguments": self._text}
        beside: Json = {"role": "assistant"} if self._kind == "message" else {"summary": []}
        return item | {"content": [self._part()]} | beside

    def _part(self) -> Json:
        part: Json = {"type": GROWING[self._kind], "text": self._text}
        if self._kind == "message":
            chances = told_chances(self._scored) if self._text else []
            part |= {"annotations": [], "logprobs": chances}
        return part

    @property
    def _status(self) -> str:
        return "incomplete" if self._choice.last.finish == "length" else "completed"

    def _response(self, status: str) -> Json:
        asked, usual = self._asked, Sampling()
        reasoning, text = asked.reasoning or Reasoning(), asked.text or Text()
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self._choice.by.get("model", asked.model),
            "output": list(self._items),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": reasoning.effort, "summary": None},
            "store": False,
            "temperature": usual.temperature if asked.temperature is None else asked.temperature,
            "text": {"format": text.format or {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": usual.top_p if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": self._usage() if status in ("completed", "incomplete") else None,
        }

    def _usage(self) -> Json:
        last = self._choice.last
        return {
            "input_tokens": last.prompt,
            "input_tokens_details": {"cached_tokens": last.cached},
            "output_tokens": last.tokens,
            "output_tokens_details": {"reasoning_tokens": self._choice.thinking_tokens},
            "total_tokens": last.prompt + last.tokens,
        }


def _new_id(kind: str) -> str:
    return f"{IDS[kind]}_{uuid.uuid4().hex}"
