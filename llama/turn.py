"""One answer, from the question to its last piece."""

import codecs
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from llama.call_format import CallFormat
from llama.errors import RequestError
from llama.grammar.forms import start_matcher
from llama.grammar.matcher import Matcher
from llama.marks import begun
from llama.model import LlamaModel, Sampler, Scored
from llama.thoughts import Thinking
from llama.types import BareText, Chat, Infill, Prompt, Sampling, TokenIds

Finish = Literal["stop", "length"]
# What is wanted: an answer, the prompt as token ids, those with each one's text, or its vector.
Task = Literal["answer", "read", "spell", "embed"]


class Readable(Protocol):
    """What reads a prompt as token ids."""

    def prompt(self, text: Prompt, /, *, bounded: bool) -> list[int]:
        """Return them. Raises RequestError for what is too long, if that is `bounded`."""

    def piece(self, token: int, /, special: bool) -> bytes:
        """Return a token's text, of special ones too, where that is asked for."""


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
    thinking: Thinking = Thinking()  # how thoughts are told from it
    scored: Scored | None = None  # how likely its token was, where that was asked for
    stopped_by: str | int | None = None  # in the last piece: the text or token that was asked for, where one ended it
    calls: CallFormat | None = None  # how it calls tools, where it may
    echoed: tuple[Scored, ...] = ()  # in the first piece: how likely the prompt's tokens were, where they are told
    drafted: int = 0  # tokens that were drafted so far (speculation.py)
    accepted: int = 0  # those of them that became the answer's
    origin: object = None  # which model gives it, as Turn.origin has it

    @property
    def tokens_per_second(self) -> float:
        """Speed of the generation alone, without the prompt; 0 until there are two tokens."""
        return (self.tokens - 1) / self.generating if self.generating else 0.0


class Turn:
    """A question and its answer. Made where it is asked, and the worker's from then on but for the two events.

    While its prompt is being read it is the reader's (see Batch.read).
    """

    def __init__(
        self,
        model: str,
        question: Prompt,
        sampling: Sampling,
        deliver: Callable[[Piece | Exception], None],
        observe: "Observe | None" = None,
        task: Task = "answer",
    ) -> None:
        """Ask `model` a question; `deliver` takes the pieces of its answer, or what it ends with instead.

        One that is not to be answered ends when it is written as token ids, however many, in one piece without text.
        """
        self.model, self.question, self.sampling, self.deliver = model, question, sampling, deliver
        self._observe, self.task = observe, task
        self.cancelled = threading.Event()
        self.unattended = threading.Event()  # nobody reads it now: it makes way for whoever waits
        self.asked = time.monotonic()
        self.began = 0.0  # monotonic clock; 0 while it waits
        self.origin: object = None  # the model that `model` names now, as whoever keeps several knows it
        self.reading: Future[None] | None = None  # of the prompt; None where `prepare` is called outright
        self.reader: object = None  # whose words the prompt is written in
        self.prompt: list[int] = []
        self.spelled: list[bytes] = []  # the prompt's tokens, where they are to be spelled
        self.cached = 0  # tokens of the prompt that the KV cache had
        self.vector: np.ndarray  # of the prompt, where that is wanted
        self.token: int | None = None  # drawn last and not decoded yet
        self.tokens = 0
        self.drafted = self.accepted = 0  # tokens (speculation.py)
        self.finished = False
        self._first = 0.0
        self._limit = 0
        self._matcher: Matcher | None = None  # where the answer must be of a form
        self._calls: CallFormat | None = None  # how tools are called, where there are some
        self._shown = frozenset[int]()  # control tokens that are text, being marks of calls
        self._thinking = Thinking()
        self._head = ""  # what is told before the answer
        self.echoed: list[Scored] = []  # how likely the prompt's tokens are, so far
        self.unscored = 0  # tokens of the prompt of which that is still to be told
        self._goes_on: np.ndarray  # tokens that do not end the model's turn, bool [vocabulary], where that matters
        # A character's bytes may come in several tokens; bytes that never make a character are dropped.
        self._characters = codecs.getincrementaldecoder("utf-8")("ignore")
        self._stops = StopTexts(sampling.stop, sampling.keep_stop)

    @property
    def only_read(self) -> bool:
        """Whether it ends when its prompt is written."""
        return self.task in ("read", "spell")

    @property
    def _is_text(self) -> bool:
        """Whether it goes on with a text, and answers no conversation."""
        return isinstance(self.question, str | BareText | TokenIds | Infill)

    @property
    def being_read(self) -> bool:
        """Whether its prompt is being written."""
        return self.reading is not None and not self.reading.done()

    @property
    def failure(self) -> BaseException | None:
        """Why its prompt could not be written, if it is known."""
        reading = self.reading
        return reading.exception() if reading and reading.done() and not reading.cancelled() else None

    @property
    def left(self) -> int:
        """Tokens that may still come."""
        return self._limit - self.tokens

    def prepare(self, model: LlamaModel, drop_oldest: bool) -> None:
        """Write the prompt. Raises RequestError for one that the model cannot take."""
        if self.only_read:
            self.read(model)
        else:
            self.go_on_from(model.prompt(self.question, drop_oldest), model)

    def read(self, model: Readable) -> None:
        """Write the prompt where no answer is wanted. Raises RequestError for one that the model cannot take."""
        self.prompt = model.prompt(self.question, bounded=not self.only_read)
        if self.task == "spell":
            self.spelled = [model.piece(token, special=True) for token in self.prompt]

    def score_prompt(self, model: LlamaModel, scored: Sequence[Scored]) -> None:
        """Take how likely the prompt's next tokens were; nothing is told of one that the text has not, such as BOS."""
        first = model.piece(self.prompt[0], special=True)
        added = not model.piece(self.prompt[0]) and not self._head.startswith(first.decode(errors="replace"))
        if self.unscored == len(self.prompt) - 1 and not added:
            self.echoed.append(Scored(first, None, ()))
        self.echoed.extend(scored)
        self.unscored -= len(scored)

    def end_read(self) -> None:
        """End one that is `only_read`, whose prompt is written."""
        self._end("stop")

    def end_embedded(self, vector: np.ndarray) -> None:
        """End one whose text is turned into a vector, float32 [width]."""
        self.vector = vector
        self._end("stop")

    def go_on_from(self, prompt: list[int], model: LlamaModel) -> None:
        """Take a prompt that is written as token ids already, and leaves room for an answer."""
        self.prompt = prompt
        self._thinking = self._thinking_of(model)
        _check_tokens("logit_bias", [token for token, _ in self.sampling.logit_bias], model.vocabulary)
        _check_tokens("stop_token_ids", self.sampling.stop_tokens, model.vocabulary)
        if self.sampling.min_tokens or self.sampling.ignore_eos:
            self._goes_on = np.ones(model.vocabulary, bool)
            self._goes_on[list(model.ends)] = False
        if self.sampling.echo:
            self._head = _told_again(self.question, prompt, model)
            self.unscored = 0 if self.sampling.logprobs is None else len(prompt) - 1
        tools = self.question.tools if isinstance(self.question, Chat) else None
        self._calls = model.call_format if tools else None
        self._shown = frozenset() if self._is_text else model.shown(self._calls, self._thinking.form)
        if self.sampling.form or tools:
            form = self.sampling.form
            self._matcher = start_matcher(form, self.question, model, self._thinking, self._calls)
        self._limit = min(self.sampling.max_tokens, model.context - len(prompt))

    def begin(self, model: LlamaModel, cached: int) -> None:
        """Begin the answer, with so many tokens of the prompt in the KV cache; whoever begins it frees the sampler."""
        self.cached, self.began = cached, time.monotonic()
        self.sampler = Sampler(self.sampling, model.vocabulary)

    def fail(self, error: RequestError) -> None:
        """End the answer where it cannot go on; the others do."""
        self.finished, self._matcher = True, None
        if self._observe:
            self._observe(self, error)
        self.deliver(error)

    def take(self, token: int, model: LlamaModel, scored: Scored | None = None) -> None:
        """Add a token to the answer, or end it."""
        if not self._limit:  # nothing but the prompt is to be told
            self._end("length")
            return
        ends = model.is_end(token)
        stop: str | int | None = token if token in self.sampling.stop_tokens and not ends else None
        if ends or (stop is not None and not self.sampling.keep_stop):
            # With a prompt that is told again, as OpenAI had it: harnesses take the last that is told for the answer's.
            self._end("stop", stop, scored if self.sampling.echo else None)
            return
        self.token, self.tokens = token, self.tokens + 1
        self._first = self._first or time.monotonic()
        piece, found = model.piece(token, token in self._shown), None
        text = self._characters.decode(piece)
        if self.tokens > self.sampling.min_tokens:
            text, found = self._stops.pass_on(text)
        self._deliver(text, scored=scored)
        if self._matcher:
            self._matcher.take(token)
        stop = found or stop
        if stop is not None or (self._matcher and self._matcher.ended):
            self._end("stop", stop)
        elif self.tokens == self._limit:
            self._end("length")

    def allowed(self) -> np.ndarray | None:
        """Return which tokens may come next, bool [vocabulary]: none that ends an answer which has to go on.

        None for all.
        """
        allowed = self._matcher.allowed() if self._matcher else None
        early = self.tokens < self.sampling.min_tokens
        is_whole = self._matcher is not None and self._matcher.ended  # what it goes on with is all that it may be
        if is_whole or not (early or self.sampling.ignore_eos):
            return allowed
        allowed = self._goes_on.copy() if allowed is None else allowed & self._goes_on
        allowed[list(self.sampling.stop_tokens) if early else []] = False
        if not allowed.any():
            name = "min_tokens" if early else "ignore_eos"
            raise RequestError(f"{name}: the form of the answer lets it go no further.", param=name)
        return allowed

    def _thinking_of(self, model: LlamaModel) -> Thinking:
        """Return how the answer's thoughts are told from it: not at all where a text is gone on with."""
        if self._is_text:
            return Thinking()
        form = model.thoughts
        if isinstance(self.question, Chat) and self.question.goes_on:
            return Thinking(form, form.opens(form.begun(self.question.messages[-1])), goes_on=True)
        return Thinking(form, model.ends_with(self.prompt, form.open))

    def _end(self, finish: Finish, stopped_by: str | int | None = None, scored: Scored | None = None) -> None:
        self.finished, self._matcher = True, None  # whose process ends with it
        self._deliver(self._stops.rest(), finish, scored, stopped_by)

    def _deliver(
        self,
        text: str,
        finish: Finish | None = None,
        scored: Scored | None = None,
        stopped_by: str | int | None = None,
    ) -> None:
        now = time.monotonic()
        generating = now - (self._first or now)
        head, self._head = self._head, ""
        echoed, self.echoed = tuple(self.echoed), []
        piece = Piece(
            head + text,
            self.tokens,
            now - self.asked,
            generating,
            len(self.prompt),
            self.cached,
            finish,
            self._thinking,
            scored,
            stopped_by,
            self._calls,
            echoed,
            self.drafted,
            self.accepted,
            self.origin,
        )
        if self._observe and (finish or self.tokens == 1):
            self._observe(self, piece)
        self.deliver(piece)


# Told of an answer's first and last piece, or of what it ended with instead; None where its user left.
Observe = Callable[[Turn, Piece | Exception | None], None]


class StopTexts:
    """Ends an answer before one of a few texts, or behind it, however it is spread over tokens."""

    def __init__(self, texts: Sequence[str], kept: bool = False) -> None:
        """Look for texts; one that is `kept` is a part of the answer."""
        self._texts, self._kept = texts, kept
        self._held = ""  # may be the beginning of one

    def pass_on(self, text: str) -> tuple[str, str | None]:
        """Return what can be shown by now, and the text by which the answer ends there."""
        text = self._held + text
        found = [(at, stop) for stop in self._texts if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            at, stop = min(found, key=lambda each: each[0])
            return text[: at + len(stop) if self._kept else at], stop
        shown = len(text) - max((begun(text, stop) for stop in self._texts), default=0)
        self._held = text[shown:]
        return text[:shown], None

    def rest(self) -> str:
        """Return what was held back when the answer ended for another reason."""
        held, self._held = self._held, ""
        return held


def _told_again(question: Prompt, prompt: Sequence[int], model: LlamaModel) -> str:
    """Return a prompt as a text: as it was asked, or what its tokens write."""
    match question:
        case str():
            return question
        case Infill():
            return question.before
    return b"".join(model.piece(token, special=True) for token in prompt).decode(errors="replace")


def _check_tokens(field: str, ids: Sequence[int], vocabulary: int) -> None:
    """Raise RequestError for the first id that no token has."""
    for token in ids:
        if not 0 <= token < vocabulary:
            text = f"{field}: there is no token {token}: the model has {vocabulary}, from 0 on."
            raise RequestError(text, param=field)
