"""Answers for several users from models on one CPU. Knows nothing of web pages.

    with Engine(find_models(folder), settings) as engine:
        for piece in engine.stream("starter-m-Q8_0", [{"role": "user", "content": "Hello"}], Sampling()):
            print(piece.text, end="")

One worker thread owns llama.cpp. It takes the requests in the order in which they came, several at once (see batch.py),
and loads models as they are asked for (loaded.py); beside it a thread for each model writes prompts (Batch.read). So
nothing here needs a lock but a set, and who reads slowly holds nobody up. Which models there are may change meanwhile
(`change`): answers under way end on theirs, and what waits goes to what is in its place.
Ending the iteration (`break`, `close()`, a cancelled task) stops the work within one step.
"""

import asyncio
import logging
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from common.errors import UserError
from llama.batch import Batch
from llama.embedding import Embedder
from llama.errors import EngineError, ModelError, RequestError
from llama.turn import Observe, Piece, Task, Turn
from llama.types import Prompt, Sampling
from serve.errors import Busy, MadeWay, Stopping
from serve.limits import check_request
from serve.loaded import LoadedModels
from serve.models.catalogue import Catalogue
from serve.models.registry import Model
from serve.settings import Settings

PATIENCE = 0.01  # seconds that answers under way wait for a new prompt: most are written in one or two thousandths
SECONDS_GUESSED = 10.0  # that an answer takes, before there was one
LOOK_SECONDS = 1.0  # after which whoever waits for the worker sees whether there is one

T = TypeVar("T")

logger = logging.getLogger(__name__)  # never given a word of a conversation


@dataclass(frozen=True)
class Load:
    """How busy the engine is."""

    answering: int
    waiting: int


class Engine:
    """Models and the worker that runs them. Close it, or use it as a context manager."""

    def __init__(
        self, models: Mapping[str, Model] | Catalogue, settings: Settings, observe: Observe | None = None
    ) -> None:
        """Load the model to begin with and start the worker.

        Args:
            models: by name; those that are tried first and cannot be loaded are left out.
            settings: limits and sizes.
            observe: told of each answer's first and last piece by the worker, and of each that was refused or cut off.

        Raises UserError if the model that is set, or any, cannot be loaded.
        """
        self._settings = settings
        self._observe = observe
        self._inbox: queue.SimpleQueue[Turn | Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[Turn] = deque()
        self._open: set[Turn] = set()  # those that have been taken in and have not ended
        self._lock = threading.Lock()  # for that set
        self._seconds = SECONDS_GUESSED  # that answers take lately
        self._retiring = threading.Event()
        self._draining = threading.Event()
        self._closing = threading.Event()
        self._loaded = LoadedModels(models if isinstance(models, Catalogue) else Catalogue(models), settings)
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def retire(self) -> None:
        """Be no longer ready, so that others are asked instead; whoever asks all the same is answered."""
        self._retiring.set()

    def drain(self) -> None:
        """Take nothing in any more; what was taken in goes on."""
        self._draining.set()

    def close(self, timeout: float = 5) -> None:
        """Stop within a step, tell those who wait, free the models. Waits up to `timeout` seconds."""
        self._draining.set()
        self._closing.set()
        self._inbox.put(None)
        self._worker.join(timeout)

    def stream(self, model: str, question: Prompt, sampling: Sampling) -> Iterator[Piece]:
        """Yield the answer piece by piece; the last piece has `finish` set.

        Raises RequestError for a request out of bounds, longer than the context, or cut off by `close`; Busy, which is
        one, when too many wait.
        """
        pieces: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()
        turn = self._submit(model, question, sampling, pieces.put)
        try:
            while True:
                piece = _unwrap(pieces.get())
                yield piece
                if piece.finish:
                    return
        finally:
            turn.cancelled.set()

    async def astream(
        self, model: str, question: Prompt, sampling: Sampling, unattended: threading.Event | None = None
    ) -> AsyncIterator[Piece]:
        """Yield an answer's pieces as `stream` does, for an event loop.

        While `unattended` is set it ends with MadeWay as soon as somebody waits for its place.
        """
        pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        turn = self._submit(model, question, sampling, _into(pieces), unattended=unattended)
        try:
            while True:
                piece = _unwrap(await pieces.get())
                yield piece
                if piece.finish:
                    return
        finally:
            turn.cancelled.set()

    async def tokens(self, model: str, text: Prompt) -> list[int]:
        """Return a conversation or a text as the model reads it, as token ids; in turn, as what is to be answered.

        Raises RequestError for what the model cannot take; it may be longer than the context.
        """
        return (await self._done(model, text, "read")).prompt

    async def spelled(self, model: str, text: Prompt) -> list[tuple[int, bytes]]:
        """Return the same, each token with its text, which may be a part of a character. Raises RequestError."""
        turn = await self._done(model, text, "spell")
        return list(zip(turn.prompt, turn.spelled, strict=True))

    @property
    def ready(self) -> bool:
        """Whether questions are to be sent here."""
        return self._worker.is_alive() and not self._retiring.is_set() and not self._draining.is_set()

    @property
    def busy(self) -> bool:
        """Whether there are answers under way, or requests that wait for theirs."""
        return bool(self._open)

    def load(self) -> Load:
        """Return how busy the engine is at this moment."""
        answering = sum(len(batch.active) for batch in self._loaded.batches)
        return Load(answering, max(len(self._open) - answering, 0))

    @property
    def catalogue(self) -> Catalogue:
        """The models that there are."""
        return self._loaded.catalogue

    @property
    def default(self) -> str:
        """The name of the model picked first, or of the one in its place."""
        return self._loaded.default

    @property
    def in_memory(self) -> list[str]:
        """The names of the models that are, but for those on their way out; an adapter is with its base."""
        return self._loaded.names

    @property
    def seconds_with_two(self) -> float:
        """Seconds in which a model was in memory beside the one in its place, all swaps together."""
        return self._loaded.seconds_with_two

    def change(self, after: Catalogue) -> None:
        """Serve other models from now on; from one thread at a time, which is not the worker's.

        What is in memory and gets another in its place goes on until its answers have ended, while that one is loaded
        beside it. Where memory has no room for both it ends its answers first, and what is asked meanwhile waits.

        Raises UserError where one cannot be loaded: then all is as it was. Stopping when the engine closes.
        """
        try:
            self._loaded.change(after, self._do)
        finally:
            self._inbox.put(None)  # for what waits for a model to be loaded

    async def embed(self, model: str, text: Prompt) -> tuple[np.ndarray, int, Model]:
        """Return a text's vector, float32 [width], of length one, its tokens, and the model; in turn, as an answer.

        Raises RequestError for a text that the model cannot take, and for a model that makes no vectors.
        """
        turn = await self._done(model, text, "embed")
        return turn.vector, len(turn.prompt), given_by(turn)

    @property
    def models(self) -> Mapping[str, Model]:
        """Those that answer."""
        return self.catalogue.answering

    @property
    def all_models(self) -> Mapping[str, Model]:
        """Those that answer, and those that make vectors."""
        return self.catalogue.models

    def find(self, name: object, task: Task = "read") -> Model:
        """Return the model that a name stands for now.

        Raises RequestError for a name that no model has, or one that is for something else.
        """
        catalogue = self.catalogue
        model = catalogue.find(name)
        if task == "answer" and model.embeds:
            raise RequestError(f"{name} is an embedding model, and answers nothing: ask another one.", param="model")
        if task == "embed" and not model.embeds:
            embedders = ", ".join(catalogue.embedders)
            others = f"there is {embedders}" if embedders else "there is none on this server"
            raise RequestError(f"{name} is no embedding model; {others}.", param="model")
        return model

    async def _done(self, model: str, text: Prompt, task: Task) -> Turn:
        """Return a turn of another task than an answer when it has ended. Raises RequestError."""
        told: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        turn = self._submit(model, text, Sampling(max_tokens=1, temperature=0), _into(told), task)
        try:
            _unwrap(await told.get())
            return turn
        finally:
            turn.cancelled.set()

    def _submit(
        self,
        model: str,
        question: Prompt,
        sampling: Sampling,
        deliver: Callable[[Piece | Exception], None],
        task: Task = "answer",
        unattended: threading.Event | None = None,
    ) -> Turn:
        observe = self._observe if task in ("answer", "embed") else None
        turn = Turn(model, question, sampling, deliver, observe, task)
        turn.unattended = unattended or turn.unattended
        try:
            self._take_in(turn)
        except RequestError as error:
            self._tell(turn, error)
            raise
        return turn

    def _take_in(self, turn: Turn) -> None:
        """Let a turn wait for the worker. Raises RequestError where it is out of bounds or there is no room."""
        self._resolve(turn)
        check_request(turn.model, turn.question, turn.sampling, self.all_models, self._settings)
        if self._draining.is_set():
            raise Stopping()
        with self._lock:
            attended = sum(not other.unattended.is_set() for other in self._open)  # the others make way
            waiting = attended - max(self._settings.slots, self.load().answering)
            if waiting >= self._settings.queue:
                raise Busy(waiting, self._seconds * (waiting + 1) / self._settings.slots)
            self._open.add(turn)
        self._inbox.put(turn)

    def _work(self) -> None:
        """Work step after step until the engine closes."""
        while self._receive():
            self._admit()
            for batch in self._loaded.batches:
                self._step(batch)
            self._loaded.let_go()
        for turn in self._loaded.close():
            self._end(turn, Stopping())
        while self._waiting:
            self._end(self._waiting.popleft(), Stopping())

    def _receive(self) -> bool:
        """Take in what was asked, and wait for it where there is nothing else to do; False when the engine closes."""
        batches = self._loaded.batches
        idle = not any(batch.active for batch in batches) and (
            # A prompt that is read wakes the worker, and so does the end of a change.
            not self._waiting or self._loaded.changing.is_set() or any(batch.reading for batch in batches)
        )
        with suppress(queue.Empty):
            while True:
                received = self._inbox.get(block=idle)
                idle = False
                if isinstance(received, Turn):
                    self._waiting.append(received)
                elif received is not None:
                    received()
        return not self._closing.is_set()

    def _admit(self) -> None:
        """Begin what waits, in order, as far as there is room; whoever has left makes room in the queue."""
        for left in [turn for turn in self._waiting if turn.cancelled.is_set()]:
            self._waiting.remove(left)
            self._end(left)
        for turn in list(self._waiting):
            try:
                if not self._begin(turn):
                    if turn.being_read:
                        continue
                    self._make_way()
                    return
            except ModelError as error:
                logger.error("the chat template of %s fails, or takes too long", turn.model)
                self._end(turn, error)
                self._waiting.remove(turn)
                self._step_back(turn.model)
                return
            except RequestError as error:
                self._end(turn, error)
            except UserError as error:  # the model's file was whole when the server started and is not now
                logger.error("%s", error)
                self._end(turn, ModelError(f"The model {turn.model} cannot be loaded: the server's log says why."))
            except Exception as error:
                _log(turn.model, error)
                self._end(turn, error)
            self._waiting.remove(turn)

    def _step_back(self, model: str) -> None:
        """Let what waits for other models go first, which a template that takes its second each time holds up."""
        others = [turn for turn in self._waiting if turn.model != model]
        if others:
            its_own = [turn for turn in self._waiting if turn.model == model]
            for turn in its_own:
                if turn.reading:
                    turn.reading.cancel()  # unless it is under way; it is read anew
            self._waiting = deque([*others, *its_own])

    def _make_way(self) -> None:
        """End an answer that nobody reads, for one that somebody waits for; of a queue too long one that is to come."""
        if all(turn.unattended.is_set() for turn in self._waiting):
            return
        answering = [slot.turn for batch in self._loaded.batches for slot in batch.active if slot.turn]
        for turn in [*answering, *(self._waiting if len(self._waiting) > self._settings.queue else ())]:
            if turn.unattended.is_set() and not turn.cancelled.is_set():
                turn.cancelled.set()
                turn.deliver(MadeWay())
                return

    def _begin(self, turn: Turn) -> bool:
        """Begin an answer; False if it must wait for its model, for its prompt or for room.

        Raises what writing the prompt or loading the model does.
        """
        if turn.failure:  # to hear of which no model has to be loaded
            raise turn.failure
        batch = self._loaded.batch(self._resolve(turn))
        if batch is None:
            return False
        reading = turn.reading
        if reading and turn.reader is not batch:  # it is another model's by now
            if not (reading.cancel() or reading.done()):
                return False
            reading = None
        if reading is None or reading.cancelled():
            turn.reader = batch
            reading = batch.read(turn, self._settings.overflow == "drop", lambda: self._inbox.put(None))
            wait([reading], PATIENCE)
        if not reading.done() or turn.cancelled.is_set():  # a prompt that nobody waits for may not have been read
            return False
        reading.result()
        if turn.only_read:
            turn.end_read()
        elif not batch.begin(turn):
            return False
        if turn.finished:
            self._end(turn)
        return True

    def _step(self, batch: Batch | Embedder) -> None:
        """Take one step for one model; whatever goes wrong is its users' to hear, and the worker goes on."""
        before = [stream.turn for stream in batch.active if stream.turn]
        try:
            batch.step()
        except Exception as error:
            self._loaded.drop(batch)
            _log(before[0].model if before else "a model", error)
            batch.close()
            for turn in before:
                self._end(turn, error)
            return
        active = [stream.turn for stream in batch.active]
        for turn in before:
            if turn not in active:
                self._end(turn)

    def _end(self, turn: Turn, error: Exception | None = None) -> None:
        """Count a turn out, and tell its user what went wrong."""
        with self._lock:
            self._open.discard(turn)
        if not turn.finished:
            self._tell(turn, error)
        if error is not None:
            turn.deliver(error if isinstance(error, RequestError) else EngineError("the answer failed"))
        elif turn.finished and turn.task == "answer":
            self._seconds += 0.2 * (time.monotonic() - turn.began - self._seconds)

    def _tell(self, turn: Turn, error: Exception | None) -> None:
        if self._observe and not turn.only_read:
            self._observe(turn, error)

    def _resolve(self, turn: Turn) -> Model:
        """Return the model that a turn's name stands for now, by whose own name it goes from then on."""
        model = self.find(turn.model, turn.task)
        turn.model, turn.origin = model.name, model
        return model

    def _do(self, job: Callable[[], T]) -> T:
        """Let the worker do something between two steps; return what comes of it. Raises Stopping without a worker."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(job())
            except BaseException as error:
                done.set_exception(error)

        self._inbox.put(run)
        while not wait([done], LOOK_SECONDS).done:
            if not self._worker.is_alive():
                raise Stopping()
        return done.result()


def given_by(answer: Piece | Turn) -> Model:
    """Return the model that gives an answer."""
    assert isinstance(answer.origin, Model)  # noqa: S101 - the engine names it before there is anything of it
    return answer.origin


def _log(model: str, error: Exception) -> None:
    """Say where an answer failed. Of errors that are not ours the text is left out: it may quote the conversation."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    text = f": {error}" if isinstance(error, EngineError) else ""
    logger.error("an answer of %s failed\n%s%s%s", model, frames, type(error).__name__, text)


def _into(pieces: "asyncio.Queue[Piece | Exception]") -> Callable[[Piece | Exception], None]:
    """Return how the worker puts pieces into a queue of the running event loop."""
    loop = asyncio.get_running_loop()

    def deliver(piece: Piece | Exception) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it whoever was listening
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    return deliver


def _unwrap(piece: Piece | Exception) -> Piece:
    if isinstance(piece, Exception):
        raise piece
    return piece
