"""Answers under way, each by an id that its page made up: one goes on when the page is left, and is found again.

An answer that nobody reads makes way for whoever waits for its place (Engine.astream), and ends after PATIENCE seconds.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import TypedDict

from llama.errors import RequestError
from llama.thoughts import Parts, Thoughts
from llama.types import Chat, Sampling
from serve.engine import Engine, Piece, given_by
from serve.feedback import Answer, AnswerRecord, ModelVersion, new_id
from serve.page.answers import REDRAW_SECONDS, figures, timings
from serve.page.remembered import Answers

GONE = "The rest of this answer is lost: the page was away for too long. Continue it, or ask again."
PATIENCE = 60.0  # seconds for which an answer goes on, or is kept when it has ended, without a reader


@dataclass(frozen=True)
class Question:
    """What a page asks."""

    id: str  # of the answer; nobody else can guess it
    chat: Chat  # where it goes on, its last message is the answer's beginning
    model: str
    sampling: Sampling
    begun: Parts = Parts("", "")  # that beginning, as the page shows it
    continues: str = ""  # the record of that beginning
    only_follow: bool = False  # an answer is not begun anew where the server knows none
    conversation: str = ""  # its id
    by: str = ""  # the model that gave the conversation's last answer
    shown: str = ""  # the model that the page is told of, where another one answers in its place


class State(TypedDict):
    """How far an answer has come, for page.js."""

    id: str
    record: str  # by which it can be judged when it has ended
    thought: str
    text: str
    thinking: bool
    thought_seconds: float
    by: str  # the model that gave it, for the conversation to stay with it
    caption: str  # which model was asked, and its figures
    done: bool  # the model ended it
    ended: bool  # nothing more comes


@dataclass(eq=False)
class Reader:
    """Who follows an answer: a session of Gradio's, which is a page."""

    session: str
    left: bool = False


@dataclass(eq=False)
class Growing:
    """One answer as it comes."""

    question: Question
    unattended: threading.Event = field(default_factory=threading.Event)
    record: str = field(default_factory=new_id)
    raw: str = ""  # the model's own words, without the beginning
    thought: str = ""
    text: str = ""
    thinking: bool = False
    thought_seconds: float = 0.0
    last: Piece | None = None
    error: Exception | None = None
    ended: bool = False
    readers: list[Reader] = field(default_factory=list)
    task: asyncio.Task[None] = field(init=False)
    forgetting: asyncio.TimerHandle | None = None  # while nobody reads it
    news: asyncio.Event = field(default_factory=asyncio.Event)  # replaced with each

    def take(self, piece: Piece, thoughts: Thoughts) -> None:
        """Add a piece."""
        parts = thoughts.take(piece.text, last=bool(piece.finish))
        self.raw += piece.text
        self.thought += parts.thought
        self.text += parts.said
        self.thinking, self.last = thoughts.within and not piece.finish, piece
        if parts.thought:
            self.thought_seconds = piece.generating
        self.tell()

    def tell(self) -> None:
        """Wake the readers."""
        self.news.set()
        self.news = asyncio.Event()

    def state(self) -> State:
        """Return how far it has come."""
        given = given_by(self.last) if self.last else None
        model = self.question.shown or (given.title if given else self.question.model)
        return {
            "id": self.question.id,
            "record": self.record,
            "thought": self.thought,
            "text": self.text,
            "thinking": self.thinking,
            "thought_seconds": round(self.thought_seconds, 1),
            "by": given.name if given else self.question.model,
            "caption": f"{model} · {figures(timings(self.last))}" if self.last else model,
            "done": bool(self.last and self.last.finish == "stop"),
            "ended": self.ended,
        }


class UnderWay:
    """The answers under way for pages, of one event loop."""

    def __init__(self, engine: Engine, answers: Answers | None, patience: float = PATIENCE) -> None:
        """Ask an engine; what has ended can be judged where there are `answers`."""
        self._engine, self._answers, self._patience = engine, answers, patience
        self._known: dict[str, Growing] = {}

    async def follow(self, question: Question, session: str = "") -> AsyncIterator[State]:
        """Yield an answer as far as it has come, as often as the page is redrawn; begin it unless it is under way.

        Raises what ended it, RequestError among others, or that nothing is known of it any more.
        """
        answer = self._known.get(question.id)
        if answer is None:
            if question.only_follow:
                raise RequestError(GONE)
            answer = self._begin(question)
        reader = Reader(session)
        self._join(answer, reader)
        try:
            while not (answer.ended or reader.left):
                news = answer.news
                if answer.last:
                    yield answer.state()
                    await asyncio.sleep(REDRAW_SECONDS)
                await news.wait()
            if not reader.left:
                yield answer.state()
                if answer.error:
                    raise answer.error
        finally:
            self._part(answer, reader)

    def stop(self, answer_id: str) -> None:
        """End an answer as far as it has come."""
        if answer := self._known.get(answer_id):
            answer.task.cancel()

    def leave(self, answer_id: str, session: str) -> None:
        """Let an answer go on without a page, which shows another conversation."""
        if answer := self._known.get(answer_id):
            for reader in answer.readers:
                reader.left = reader.left or reader.session == session
            answer.tell()

    def _join(self, answer: Growing, reader: Reader) -> None:
        answer.readers.append(reader)
        answer.unattended.clear()
        if answer.forgetting:
            answer.forgetting.cancel()

    def _part(self, answer: Growing, reader: Reader) -> None:
        answer.readers.remove(reader)
        if not answer.readers:
            answer.unattended.set()
            answer.forgetting = asyncio.get_running_loop().call_later(self._patience, self._forget, answer)

    def _forget(self, answer: Growing) -> None:
        answer.task.cancel()
        del self._known[answer.question.id]

    def _begin(self, question: Question) -> Growing:
        answer = Growing(question, thought=question.begun.thought, text=question.begun.said)
        answer.task = asyncio.create_task(self._draw(answer))
        answer.task.add_done_callback(lambda _: self._end(answer))
        self._known[question.id] = answer
        return answer

    async def _draw(self, answer: Growing) -> None:
        """Take the answer from the engine until it ends."""
        question = answer.question
        thoughts: Thoughts | None = None
        drawn = self._engine.astream(question.model, question.chat, question.sampling, answer.unattended)
        try:
            async with aclosing(drawn) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    thoughts = thoughts or Thoughts(piece.thinking)
                    answer.take(piece, thoughts)
        except Exception as error:  # its readers' to raise
            answer.error = error

    def _end(self, answer: Growing) -> None:
        self._remember(answer)
        answer.ended, answer.thinking = True, False
        answer.tell()

    def _remember(self, answer: Growing) -> None:
        """Let an answer be judged, when all of it is there; of one that goes on only if its beginning is known."""
        question, messages = answer.question, answer.question.chat.messages
        text, said = answer.raw, answer.text
        if self._answers is None or answer.last is None:
            return
        model = given_by(answer.last)
        if question.chat.goes_on:
            begun, messages = answer.last.thinking.form.written(*question.begun), messages[:-1]
            known, models = self._answers.given(question.continues) or (None, ())
            if not isinstance(known, AnswerRecord) or known.messages != messages or known.answer.text != begun:
                return
            if models != (model,):  # another one has begun it
                return
            text, said = begun + text, question.begun.said + said
        thought = text[: text.rfind(said)] if said else text
        given = Answer(text, ModelVersion(model.name), timings(answer.last), thought)
        record = AnswerRecord(id=answer.record, messages=messages, sampling=asdict(question.sampling), answer=given)
        self._answers.remember(record, model)
