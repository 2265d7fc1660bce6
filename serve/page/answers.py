"""Answers on their way to the page: in the pace that it is redrawn, with their figures, remembered for feedback."""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from typing import Any

from serve.engine import Engine, Piece
from serve.errors import RequestError
from serve.feedback import Answer, AnswerRecord, FeedbackStore, ModelVersion, Record, Timings, now
from serve.limits import Message, Sampling
from serve.models import Model
from serve.words import counted

REDRAW_SECONDS = 0.05  # the page is redrawn at most this often: each redraw takes CPU time from the model
REMEMBERED = 32 << 20  # characters of conversations and answers that can be judged


async def draw(
    engine: Engine, model: str, messages: Sequence[Message], sampling: Sampling
) -> AsyncIterator[tuple[str, Piece]]:
    """The answer as far as it has come, as often as the page is redrawn. Raises RequestError."""
    text, drawn = "", 0.0
    async with aclosing(engine.astream(model, messages, sampling)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            text += piece.text
            if piece.finish or time.monotonic() - drawn >= REDRAW_SECONDS:
                drawn = time.monotonic()
                yield text, piece


async def draw_both(answers: Sequence[AsyncIterator[Any]]) -> AsyncIterator[tuple[int, Any]]:
    """What several answers yield, as it comes, with its answer's place; an error in the place of the rest."""
    drawn: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    ended = object()

    async def pump(place: int, answer: AsyncIterator[Any]) -> None:
        try:
            async for item in answer:
                drawn.put_nowait((place, item))
        except Exception as error:
            drawn.put_nowait((place, error))
        drawn.put_nowait((place, ended))

    tasks = [asyncio.create_task(pump(place, answer)) for place, answer in enumerate(answers)]
    try:
        running = len(tasks)
        while running:
            place, item = await drawn.get()
            if item is ended:
                running -= 1
            else:
                yield place, item
    finally:
        for task in tasks:
            task.cancel()


def conversation(system: Any, history: Sequence[dict], message: Any = None) -> list[Message]:
    """The messages for the model from Gradio's history, and one more.

    A question that was left without an answer (stopped at once, refused) is left out: in training each had one.
    """
    turns = [(turn["role"], text_of(turn["content"])) for turn in history]
    if message is not None:
        turns.append(("user", message))
    if system and str(system).strip():
        turns.insert(0, ("system", system))
    kept = [turn for turn, following in pairwise(turns) if not turn[0] == following[0] == "user"]
    return [{"role": role, "content": content} for role, content in [*kept, *turns[-1:]]]


def text_of(content: Any) -> Any:
    """The text of a message of Gradio's; of an answer's two parts, that is the first (see `reply`)."""
    if isinstance(content, list):
        content = content[0] if content else ""
    return content.get("text") if isinstance(content, dict) else content


def reply(text: str, piece: Piece, answer_id: str = "") -> dict:
    """An answer for Gradio's chat: the text, a line of figures below it, and by what it is known here."""
    parts = [{"type": "text", "text": part} for part in (text, figures(timings(piece)))]
    return {"role": "assistant", "content": parts, "metadata": {"id": answer_id}}


def figures(times: Timings) -> str:
    """How long an answer took, in a line."""
    first, total = (f"{seconds:.{1 if seconds >= 1 else 2}f} s" for seconds in (times.first_token, times.total))
    return f"{counted(times.tokens, 'token')}, {times.tokens_per_second:.0f}/s · {first} to the first, {total} in all"


def timings(piece: Piece) -> Timings:
    """The times of a record."""
    return Timings(piece.seconds - piece.generating, piece.seconds, piece.tokens, piece.tokens_per_second)


class Answers:
    """The answers lately given, by id, for whoever judges them: the browser sends the id back, and no text.

    So nobody can put words into a model's mouth, and an id cannot be guessed. The longest unused are forgotten.
    """

    def __init__(self, store: FeedbackStore, models: dict[str, Model], room: int = REMEMBERED) -> None:
        """What is said of them goes to the store; `room` is in characters."""
        self._store, self._models, self._room = store, models, room
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def remember(self, record: Record) -> None:
        """Take an answer in, or what was said of it."""
        with self._lock:
            self._characters += _characters(record) - _characters(self._records.pop(record.id, None))
            self._records[record.id] = record
            while self._characters > self._room:
                _, forgotten = self._records.popitem(last=False)
                self._characters -= _characters(forgotten)

    def get(self, answer_id: str) -> Record | None:
        """The record as it was last judged."""
        return self._records.get(answer_id)

    def judge(self, answer_id: str, **said: Any) -> Record:
        """Keep what is said of an answer; it is on the disk when this returns. Raises RequestError."""
        record = self.get(answer_id)
        if record is None:
            raise RequestError(
                "The server does not know this answer, or not yet all of it: wait for its end, or ask again."
            )
        record = replace(self._with_versions(record), time=now(), **said)
        self._store.add(record)
        self.remember(record)
        return record

    def _with_versions(self, record: Record) -> Record:
        """With the models' revisions, for which a file may have to be read whole."""
        if isinstance(record, AnswerRecord):
            return replace(record, answer=self._with_version(record.answer))
        return replace(record, left=self._with_version(record.left), right=self._with_version(record.right))

    def _with_version(self, answer: Answer) -> Answer:
        model = self._models[answer.model.name]
        return replace(answer, model=ModelVersion(model.name, model.revision, model.quantization))


def _characters(record: Record | None) -> int:
    if record is None:
        return 0
    answers = [record.answer] if isinstance(record, AnswerRecord) else [record.left, record.right]
    return sum(len(message["content"]) for message in record.messages) + sum(len(answer.text) for answer in answers)
