"""Answers for several users from models on one CPU. Knows nothing of web pages.

    with Engine(find_models(folder), settings) as engine:
        for piece in engine.stream("starter-m-Q8_0", [{"role": "user", "content": "Hello"}], Sampling()):
            print(piece.text, end="")

One worker thread owns llama.cpp. It takes the requests in the order in which they came, several at once (see batch.py),
and loads models as they are asked for; beside it a thread for each model writes prompts (Batch.read). So nothing here
needs a lock but a set, and who reads slowly holds nobody up.
Ending the iteration (`break`, `close()`, a cancelled task) stops the work within one step.
"""

import asyncio
import logging
import queue
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Self

import numpy as np

from common.errors import UserError
from llama.adapters import Adapters
from llama.batch import Batch
from llama.draft import DraftModel, vocabulary
from llama.embedding import Embedder
from llama.errors import EngineError, ModelError, RequestError
from llama.huge_pages import use_huge_pages
from llama.memory import check_memory
from llama.model import LlamaModel
from llama.speculation import Speculation
from llama.turn import Observe, Piece, Task, Turn
from llama.types import Prompt, Sampling
from serve.errors import Busy, MadeWay, Stopping
from serve.limits import check_model, check_request
from serve.models.registry import Model
from serve.settings import Settings

PATIENCE = 0.01  # seconds that answers under way wait for a new prompt: most are written in one or two thousandths
SECONDS_GUESSED = 10.0  # that an answer takes, before there was one

logger = logging.getLogger(__name__)  # never given a word of a conversation


@dataclass(frozen=True)
class Load:
    """How busy the engine is."""

    answering: int
    waiting: int


class Engine:
    """Models and the worker that runs them. Close it, or use it as a context manager."""

    def __init__(self, models: Mapping[str, Model], settings: Settings, observe: Observe | None = None) -> None:
        """Load the model to begin with and start the worker.

        Args:
            models: by name; those that are tried first and cannot be loaded are left out.
            settings: limits and sizes.
            observe: told of each answer's first and last piece by the worker, and of each that was refused or cut off.

        Raises UserError if the model that is set, or any, cannot be loaded.
        """
        self.models = {name: model for name, model in models.items() if not model.embeds}  # those that answer
        self.embedders = {name: model for name, model in models.items() if model.embeds}
        self._settings = settings
        self._observe = observe
        self._loaded: OrderedDict[str, Batch | Embedder] = OrderedDict()  # the one used last stands last
        self._inbox: queue.SimpleQueue[Turn | None] = queue.SimpleQueue()
        self._waiting: deque[Turn] = deque()
        self._open: set[Turn] = set()  # those that have been taken in and have not ended
        self._lock = threading.Lock()  # for that set
        self._seconds = SECONDS_GUESSED  # that answers take lately
        self._draining = threading.Event()
        self._closing = threading.Event()
        self._drafted = self._find_drafted()
        self.default = self._load_first(settings.model)
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        """Whether questions are taken in."""
        return self._worker.is_alive() and not self._draining.is_set()

    @property
    def busy(self) -> bool:
        """Whether there are answers under way, or requests that wait for theirs."""
        return bool(self._open)

    def load(self) -> Load:
        """Return how busy the engine is at this moment."""
        answering = sum(len(batch.active) for batch in list(self._loaded.values()))
        return Load(answering, max(len(self._open) - answering, 0))

    def _load_first(self, configured_name: str) -> str:
        """Load the model to begin with, and return its name.

        It is the one that is set, else the smallest that can be loaded, one that chats if there is any.

        Raises UserError where there is none.
        """
        if configured_name:
            self._batch(configured_name)
            return configured_name
        faults: list[UserError] = []
        draft = self._settings.draft

        def order(model: Model) -> tuple[object, ...]:
            return not model.chats, bool(model.base), model.name == draft, model.size

        for model in sorted(self.models.values(), key=order):
            if model.name not in self.models:
                continue
            try:
                self._batch(model.name)
            except UserError as error:
                faults.append(error)
                self._leave_out(model.name)
                continue
            for fault in faults:
                logger.warning("left out: %s", fault)
            return model.name
        raise faults[0]

    def _leave_out(self, name: str) -> None:
        """Forget a model that cannot be loaded, and the adapters over it."""
        for model in list(self.models.values()):
            if name in (model.name, model.base):
                del self.models[model.name]

    async def embed(self, model: str, text: Prompt) -> tuple[np.ndarray, int]:
        """Return a text's vector, float32 [width], of length one, and its tokens; in turn, as what is to be answered.

        Raises RequestError for a text that the model cannot take, and for a model that makes no vectors.
        """
        turn = await self._done(model, text, "embed")
        return turn.vector, len(turn.prompt)

    @property
    def all_models(self) -> dict[str, Model]:
        """Those that answer, and those that make vectors."""
        return self.models | self.embedders

    def check_model(self, name: object, task: Task = "answer") -> None:
        """Raise RequestError for a name that no model has, or one that is for something else."""
        check_model(name, self.all_models)
        if task == "answer" and name in self.embedders:
            raise RequestError(f"{name} is an embedding model, and answers nothing: ask another one.", param="model")
        if task == "embed" and name in self.models:
            others = f"there is {', '.join(self.embedders)}" if self.embedders else "there is none on this server"
            raise RequestError(f"{name} is no embedding model; {others}.", param="model")

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
        self.check_model(turn.model, turn.task)
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
            for batch in list(self._loaded.values()):
                self._step(batch)
        for batch in self._loaded.values():
            for turn in batch.close():
                self._end(turn, Stopping())
        self._loaded.clear()
        while self._waiting:
            self._end(self._waiting.popleft(), Stopping())

    def _receive(self) -> bool:
        """Take in what was asked, and wait for it where there is nothing else to do; False when the engine closes."""
        batches = self._loaded.values()
        idle = not any(batch.active for batch in batches) and (
            not self._waiting or any(batch.reading for batch in batches)  # a prompt that is read wakes the worker
        )
        with suppress(queue.Empty):
            while True:
                turn = self._inbox.get(block=idle)
                idle = False
                if turn is not None:
                    self._waiting.append(turn)
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
        answering = [slot.turn for batch in self._loaded.values() for slot in batch.active if slot.turn]
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
        batch = self._batch(turn.model)
        if batch is None:
            return False
        reading = turn.reading
        if reading is None or reading.cancelled():
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
            name = next(name for name, loaded in self._loaded.items() if loaded is batch)
            del self._loaded[name]  # with whatever state it is in
            _log(name, error)
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

    def _batch(self, name: str) -> Batch | Embedder | None:
        """Return the model, loaded if it is not; None while another one must stay for the answers that it is giving.

        An adapter's is its base's. Beyond the number kept, the one unused for longest goes first.
        """
        name = self.all_models[name].base or name
        if name not in self._loaded:
            while len(self._loaded) >= self._settings.max_loaded_models:
                unused = next(
                    (name for name, batch in self._loaded.items() if not (batch.active or batch.reading)), None
                )
                if unused is None:
                    return None
                self._loaded.pop(unused).close()
            self._loaded[name] = self._load(self.all_models[name])
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _load(self, model: Model) -> Batch | Embedder:
        settings = self._settings
        context, slots = min(settings.context, model.context), 1 if model.embeds else settings.slots
        draft = self._draft(model)
        weights, token_bytes = model.size, model.token_bytes
        if draft:
            weights, token_bytes = weights + draft.size, token_bytes + draft.token_bytes
        left = check_memory(model.name, weights, slots * context * token_bytes, f"{slots} x {context:,} tokens")
        if model.embeds:
            return Embedder(model.path, context, settings.threads)
        over = [other for other in self.models.values() if other.base == model.name]
        adapters = Adapters({adapter.name: adapter.path for adapter in over}) if over else None
        left = max(left - sum(adapter.size for adapter in over), 0)
        with ExitStack() as stack:
            loaded = LlamaModel(model.path, context, settings.threads, slots, adapters=adapters)
            stack.enter_context(loaded)
            batch = Batch(loaded, min(settings.prompt_cache_mb << 20, left), self._speculation(loaded, draft))
            use_huge_pages()
            stack.pop_all()
        return batch

    def _speculation(self, model: LlamaModel, draft: Model | None) -> Speculation | None:
        """Return how a model's tokens are drafted; None where they are not. Raises UserError for the draft model."""
        settings = self._settings
        if settings.speculation == "off" or not model.can_cut:
            return None
        if draft is None:
            return Speculation(model)
        smaller = LlamaModel(draft.path, model.context, settings.threads, model.slots, chats=False)
        return Speculation(model, DraftModel(smaller))

    def _draft(self, model: Model) -> Model | None:
        """Return the model that drafts for another one, if there is one."""
        return self.models[self._settings.draft] if model.name in self._drafted else None

    def _find_drafted(self) -> frozenset[str]:
        """Return the names of those that the draft model drafts for. Raises UserError for one that can for none."""
        name = self._settings.draft
        if not name or self._settings.speculation == "off":
            return frozenset()
        if name not in self.models:
            raise UserError(f"SERVE_DRAFT={name} is no model here: it may be {', '.join(self.models)}")
        tokens, drafted = vocabulary(self.models[name].path), set()
        others = [other for other in self.models.values() if other.name != name]
        for other in others:
            with suppress(UserError):  # such a file is spoken of when it is to be loaded
                drafted |= {other.name} if vocabulary(other.path) == tokens else set()
        if not drafted:
            told = ", ".join(other.name for other in others) or "there is no other"
            raise UserError(f"SERVE_DRAFT={name} can draft for no model here, its vocabulary is not theirs: {told}")
        return frozenset(drafted)


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
