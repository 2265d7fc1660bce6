"""One answer, from the question to its last piece."""

import codecs
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llama.call_format import CallFormat
from llama.errors import RequestError
from llama.grammar.forms import start_matcher
from llama.grammar.matcher import Matcher
from llama.model import LlamaModel, Sampler, Scored
from llama.types import Chat, Prompt, Sampling

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """The next bit of an answer, and how far the answer has come."""

    text: str  # whole characters only; may be empty
    tokens: int  # generated so far
    seconds: float  # since it was asked, with the time that it waited
    generating: float  # seconds since the first token
    prompt: int  # tokens of the conversation
    cached: int  # those of them that were known from before
    finish: Finish | None = None  # set in the last piece: the model ended its turn, or a limit was reached
    within_thought: bool = False  # whether the prompt ends within a thought
    scored: Scored | None = None  # how likely its token was, where that was asked for
    calls: CallFormat | None = None  # how it calls tools, where it may

    @property
    def tokens_per_second(self) -> float:
        """Speed of the generation alone, without the prompt; 0 until there are two tokens."""
        return (self.tokens - 1) / self.generating if self.generating else 0.0


class Turn:
    """A question and its answer. Made where it is asked, and the worker's from then on but for `cancelled`.

    While its prompt is being read it is the reader's (see Batch.read).
    """

    def __init__(
        self,
        model: str,
        question: Prompt,
        sampling: Sampling,
        deliver: Callable[[Piece | Exception], None],
        observe: "Observe | None" = None,
        only_read: bool = False,
    ) -> None:
        """Ask `model` a question; `deliver` takes the pieces of its answer, or what it ends with instead.

        One that is `only_read` ends when it is written as token ids, however many, in one piece without text.
        """
        self.model, self.question, self.sampling, self.deliver = model, question, sampling, deliver
        self._observe, self.only_read = observe, only_read
        self.cancelled = threading.Event()
        self.asked = time.monotonic()
        self.began = 0.0  # monotonic clock; 0 while it waits
        self.reading: Future[None] | None = None  # of the prompt; None where `prepare` is called outright
        self.prompt: list[int] = []
        self.cached = 0  # tokens of the prompt that the KV cache had
        self.token: int | None = None  # drawn last and not decoded yet
        self.tokens = 0
        self.finished = False
        self._first = 0.0
        self._limit = 0
        self._matcher: Matcher | None = None  # where the answer must be of a form
        self._calls: CallFormat | None = None  # how tools are called, where there are some
        self._shown = frozenset[int]()  # control tokens that are text, being marks of calls
        self._within_thought = False
        # A character's bytes may come in several tokens; bytes that never make a character are dropped.
        self._characters = codecs.getincrementaldecoder("utf-8")("ignore")
        self._stops = StopTexts(sampling.stop)

    @property
    def being_read(self) -> bool:
        """Whether its prompt is being written."""
        return self.reading is not None and not self.reading.done()

    def prepare(self, model: LlamaModel, drop_oldest: bool) -> None:
        """Write the prompt. Raises RequestError for one that the model cannot take."""
        if self.only_read:
            self.prompt = model.prompt(self.question, bounded=False)
        else:
            self.go_on_from(model.prompt(self.question, drop_oldest), model)

    def end_read(self) -> None:
        """End one that is `only_read`, whose prompt is written."""
        self._end("stop")

    def go_on_from(self, prompt: list[int], model: LlamaModel) -> None:
        """Take a prompt that is written as token ids already, and leaves room for an answer."""
        self.prompt = prompt
        self._within_thought = model.within_thought(prompt)
        for token, _ in self.sampling.logit_bias:
            if not 0 <= token < model.vocabulary:
                text = f"logit_bias: there is no token {token}: the model has {model.vocabulary}, from 0 on."
                raise RequestError(text, param="logit_bias")
        tools = self.question.tools if isinstance(self.question, Chat) else None
        self._calls = model.call_format if tools else None
        self._shown = model.shown(self._calls)
        if self.sampling.form or tools:
            form = self.sampling.form
            self._matcher = start_matcher(form, self.question, model, self._within_thought, self._calls)
        self._limit = min(self.sampling.max_tokens, model.context - len(prompt))

    def begin(self, model: LlamaModel, cached: int) -> None:
        """Begin the answer, with so many tokens of the prompt in the KV cache; whoever begins it frees the sampler."""
        self.cached, self.began = cached, time.monotonic()
        self.sampler = Sampler(self.sampling, model.vocabulary)

    def allowed(self) -> np.ndarray | None:
        """Return which tokens may come next, bool [vocabulary]; None for all. Raises RequestError where none can."""
        return self._matcher.allowed() if self._matcher else None

    def fail(self, error: RequestError) -> None:
        """End the answer where it cannot go on; the others do."""
        self.finished = True
        if self._observe:
            self._observe(self, error)
        self.deliver(error)

    def take(self, token: int, model: LlamaModel, scored: Scored | None = None) -> None:
        """Add a token to the answer, or end it."""
        if model.is_end(token):
            self._end("stop")
            return
        self.token, self.tokens = token, self.tokens + 1
        self._first = self._first or time.monotonic()
        piece = model.piece(token, token in self._shown)
        text, stopped = self._stops.pass_on(self._characters.decode(piece))
        self._deliver(text, scored=scored)
        if self._matcher:
            self._matcher.take(piece)
            stopped = stopped or self._matcher.ended
        if stopped or self.tokens == self._limit:
            self._end("stop" if stopped else "length")

    def _end(self, finish: Finish) -> None:
        self.finished = True
        self._deliver(self._stops.rest(), finish)

    def _deliver(self, text: str, finish: Finish | None = None, scored: Scored | None = None) -> None:
        now = time.monotonic()
        generating = now - (self._first or now)
        piece = Piece(
            text,
            self.tokens,
            now - self.asked,
            generating,
            len(self.prompt),
            self.cached,
            finish,
            self._within_thought,
            scored,
            self._calls,
        )
        if self._observe and (finish or self.tokens == 1):
            self._observe(self, piece)
        self.deliver(piece)


# Told of an answer's first and last piece, or of what it ended with instead; None where its user left.
Observe = Callable[[Turn, Piece | Exception | None], None]


class StopTexts:
    """Ends an answer before one of a few texts, however it is spread over tokens."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._held = ""  # may be the beginning of one

    def pass_on(self, text: str) -> tuple[str, bool]:
        """Return what can be shown by now, and whether the answer ends there."""
        text = self._held + text
        found = [at for stop in self._texts if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        beginnings = (text[-length:] for length in range(min(len(text), self._longest), 0, -1))
        self._held = next((end for end in beginnings if any(stop.startswith(end) for stop in self._texts)), "")
        return text[: len(text) - len(self._held)], False

    def rest(self) -> str:
        """Return what was held back when the answer ended for another reason."""
        held, self._held = self._held, ""
        return held

    @property
    def _longest(self) -> int:
        return max(map(len, self._texts), default=0)
