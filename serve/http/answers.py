"""How answers are written for programs: whole, or as a stream of events, as OpenAI writes them."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from itertools import accumulate
from typing import Protocol, cast

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from llama.call_stream import Said
from llama.model import Scored
from llama.thoughts import Parts, Thoughts
from llama.types import Chat, Prompt
from serve.engine import Piece
from serve.http.error_responses import describe
from serve.http.requests import ChatRequest, TextRequest
from serve.http.tool_calls import Told, ToolCalls
from serve.models.registry import Model

UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # events are passed on as they come
WAITING = ": waiting\n\n"  # a comment, which clients pass over and which keeps proxies from hanging up

Json = dict[str, object]
Drawn = AsyncGenerator[tuple[int, Piece | Exception] | None, None]  # pieces of several answers; None for silence


class Choice:
    """One answer as it comes."""

    def __init__(self, index: int, prompt: Prompt, split: bool, of_old: bool = False) -> None:
        """Write the answer to a prompt as choice `index`; `split` what is thought off what is said.

        One `of_old` calls tools in OpenAI's older way.
        """
        self.tools = ToolCalls(of_old)
        self._tools = prompt.tools if isinstance(prompt, Chat) else None
        self.index, self._split = index, split
        self._thoughts: Thoughts | None = None
        self.parts: list[Parts] = []
        self.thinking_tokens = 0
        self.scored: list[Scored] = []
        self.fresh: list[Scored] = []  # those of the last piece
        self.offset = self._end = 0  # characters up to where the first of them begins, and where the last one ends
        self.by: Json = {}  # which model gives it, from the first piece on
        self.last: Piece

    def take(self, piece: Piece) -> Parts:
        """Add a piece; return what it adds to what was thought and said."""
        self.last, self.by = piece, _named(piece.origin)
        self.fresh = [*piece.echoed, *([piece.scored] if piece.scored else [])]
        self.scored.extend(self.fresh)
        self.offset, self._end = self._end, self._end + sum(len(_text(scored)) for scored in self.fresh)
        parts = self._parts(piece)
        if piece.calls:
            parts = Parts(parts.thought, self.tools.take(piece.calls, self._tools, parts.said, bool(piece.finish)))
        self.parts.append(parts)
        return parts

    def told(self) -> list[Told]:
        """Return what the last piece says and calls, in its order."""
        if self.last.calls:
            return self.tools.told()
        return [Said(said)] if (said := self.parts[-1].said) else []

    @property
    def thinks(self) -> bool:
        """Whether what comes next is thought."""
        return self._thoughts is not None and self._thoughts.within

    @property
    def finish(self) -> str | None:
        """Why it ended."""
        return self.tools.finish(self.last.finish)

    @property
    def thought(self) -> str:
        """What was thought before the answer."""
        return "".join(parts.thought for parts in self.parts)

    @property
    def said(self) -> str:
        """The answer."""
        return "".join(parts.said for parts in self.parts)

    def _parts(self, piece: Piece) -> Parts:
        if not self._split:
            return Parts("", piece.text)
        self._thoughts = self._thoughts or Thoughts(piece.thinking)
        parts = self._thoughts.take(piece.text, last=bool(piece.finish))
        if self._thoughts.within:
            self.thinking_tokens = piece.tokens
        return parts


def _named(model: object) -> Json:
    """Return the model that gives an answer, as OpenAI tells it: in place of the name that it was asked for under."""
    if not isinstance(model, Model):
        return {}
    told: Json = {"model": model.name}
    return told | ({"system_fingerprint": model.fingerprint} if model.fingerprint else {})


class Writing(Protocol):
    """Writes the answers to one request, as those who ask there read them."""

    def take(self, index: int, piece: Piece) -> object:
        """Add a piece to one of the answers."""

    def whole(self) -> Json:
        """Return the whole answers at once, when all have ended."""

    def frames(self, index: int, piece: Piece) -> str:
        """Return what a stream tells of an answer's next piece."""

    def end(self) -> str:
        """Return how a stream ends."""

    def failed(self, error: Exception) -> str:
        """Return how it ends where something went wrong."""


class Writer:
    """Writes the answers to one request as OpenAI's completions are."""

    def __init__(self, request: ChatRequest | TextRequest, prompts: Sequence[Prompt]) -> None:
        """For a request, and the prompts that it has."""
        self.chat, self._each, self._with_usage = isinstance(request, ChatRequest), request.choices, request.with_usage
        split = isinstance(request, ChatRequest) and request.reasoning_format != "none"
        of_old = isinstance(request, ChatRequest) and request.of_old
        places = range(len(prompts) * self._each)
        self.choices = [Choice(place, prompts[place // self._each], split, of_old) for place in places]
        self._begun: set[int] = set()
        self._head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
        }

    def take(self, index: int, piece: Piece) -> None:
        """Add a piece to one of the answers."""
        self.choices[index].take(piece)

    def whole(self) -> Json:
        """Return the whole answers at once, when all have ended."""
        choices = [self._choice(c, self._message(c), self._logprobs(c.scored), c.finish) for c in self.choices]
        for told, choice in zip(choices, self.choices, strict=True):
            if choice.by != self.choices[0].by:  # another model came in the place of the first one's meanwhile
                told |= choice.by
        return self._body("chat.completion", choices, self.choices[0]) | {"usage": self.usage()}

    def events(self, index: int, piece: Piece) -> list[Json]:
        """Return what a stream tells of an answer's next piece; nothing while there is nothing to tell."""
        choice = self.choices[index]
        parts, events = choice.take(piece), []
        if self.chat and index not in self._begun:
            events.append(self._chunk(choice, {"delta": {"role": "assistant", "content": ""}}))
        deltas: list[Json] = [{"delta": delta} for delta in choice.tools.deltas()]
        if index not in self._begun or any(parts) or (piece.finish and not deltas) or choice.fresh:
            deltas.insert(0, self._delta(parts))
        for place, delta in enumerate(deltas):
            last = place == len(deltas) - 1
            logprobs = None if place else self._logprobs(choice.fresh, choice.offset)
            events.append(self._chunk(choice, delta, logprobs, choice.finish if last else None))
        self._begun.add(index)
        return events

    def frames(self, index: int, piece: Piece) -> str:
        """Return the same as a stream has it."""
        return "".join(map(event, self.events(index, piece)))

    def end(self) -> str:
        """Return how a stream ends."""
        return f"{event(self.figures()) if self._with_usage else ''}data: [DONE]\n\n"

    def failed(self, error: Exception) -> str:
        """Return how it ends where something went wrong."""
        return event(describe(error).body())

    def figures(self) -> Json:
        """Return what a stream ends with where usage was asked for."""
        return self._body("chat.completion.chunk", [], self.choices[0]) | {"usage": self.usage()}

    def usage(self) -> Json:
        """Return the tokens of all answers; a prompt counts once, however many answers it has."""
        prompts = [choice.last for choice in self.choices[:: self._each]]
        prompt, tokens = sum(last.prompt for last in prompts), sum(choice.last.tokens for choice in self.choices)
        thinking = sum(choice.thinking_tokens for choice in self.choices)
        drafted = sum(choice.last.drafted for choice in self.choices)
        accepted = sum(choice.last.accepted for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": tokens,
            "total_tokens": prompt + tokens,
            "prompt_tokens_details": {"cached_tokens": sum(last.cached for last in prompts)},
            "completion_tokens_details": {
                "reasoning_tokens": thinking,
                "accepted_prediction_tokens": accepted,
                "rejected_prediction_tokens": drafted - accepted,
            },
        }

    def _message(self, choice: Choice) -> Json:
        if not self.chat:
            return {"text": choice.said}
        thought = {"reasoning_content": choice.thought} if choice.thought else {}
        called = choice.tools.message()
        said = choice.said or None if called else choice.said
        return {"message": {"role": "assistant", "content": said, **thought, **called}}

    def _delta(self, parts: Parts) -> Json:
        if not self.chat:
            return {"text": parts.said}
        named = {"reasoning_content": parts.thought, "content": parts.said}
        return {"delta": {name: text for name, text in named.items() if text}}

    def _logprobs(self, scored: Sequence[Scored], offset: int = 0) -> Json | None:
        if not scored:
            return None
        return {"content": told_chances(scored), "refusal": None} if self.chat else _text_logprobs(scored, offset)

    def _chunk(
        self, choice: Choice, payload: Mapping[str, object], logprobs: object = None, finish: str | None = None
    ) -> Json:
        return self._body("chat.completion.chunk", [self._choice(choice, payload, logprobs, finish)], choice)

    def _choice(self, choice: Choice, payload: Mapping[str, object], logprobs: object, finish: str | None) -> Json:
        return {"index": choice.index, **payload, "logprobs": logprobs, "finish_reason": finish}

    def _body(self, kind: str, choices: list[Json], of: Choice) -> Json:
        return {**self._head, **of.by, "object": kind if self.chat else "text_completion", "choices": choices}


def told_chances(scored: Sequence[Scored]) -> list[Json]:
    """Return how likely tokens were, as chats have it."""

    def told(piece: bytes, logprob: float | None) -> Json:
        return {"token": piece.decode(errors="replace"), "logprob": logprob, "bytes": list(piece)}

    return [
        {**told(token.piece, token.logprob), "top_logprobs": [told(*rival) for rival in token.likeliest]}
        for token in scored
    ]


def _text_logprobs(scored: Sequence[Scored], offset: int) -> Json:
    """Return them for tokens of which the first stands `offset` characters into the answer."""
    pieces = [_text(token) for token in scored]
    rivals = [{p.decode(errors="replace"): logprob for p, logprob in token.likeliest} for token in scored]
    return {
        "tokens": pieces,
        "token_logprobs": [token.logprob for token in scored],
        "top_logprobs": [None if token.logprob is None else each for token, each in zip(scored, rivals, strict=True)],
        "text_offset": list(accumulate(map(len, pieces[:-1]), initial=offset)),
    }


def _text(scored: Scored) -> str:
    return scored.piece.decode(errors="replace")


async def events(first: tuple[int, Piece] | None, drawn: Drawn, writer: Writing) -> AsyncIterator[str]:
    """Yield answers as server-sent events, from what was drawn first on."""
    yield _told(first, writer)
    async for item in drawn:
        if item is not None and isinstance(item[1], Exception):  # too late for a status
            yield writer.failed(item[1])
            return
        yield _told(cast(tuple[int, Piece] | None, item), writer)
    yield writer.end()


def _told(item: tuple[int, Piece] | None, writer: Writing) -> str:
    return WAITING if item is None else writer.frames(*item)


def event(content: Json, name: str = "") -> str:
    """Return one event of a stream; those of OpenAI's completions have no name."""
    return f"{f'event: {name}{chr(10)}' if name else ''}data: {json.dumps(content)}\n\n"


class EventStream(StreamingResponse):
    """Closes the answers however it ends: Starlette leaves that to the garbage collector."""

    def __init__(self, events: AsyncIterator[str], drawn: Drawn) -> None:
        super().__init__(events, media_type="text/event-stream", headers=UNBUFFERED)
        self._drawn = drawn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the client leaves."""
        async with aclosing(self._drawn):
            await super().__call__(scope, receive, send)
