"""Answers for several users from models on one CPU. Knows nothing of web pages.

    with Engine(find_models(folder), settings) as engine:
        for piece in engine.stream("starter-m-Q8_0", [{"role": "user", "content": "Hello"}], Sampling()):
            print(piece.text, end="")

One worker thread owns llama.cpp: it takes the requests in the order in which they came, whichever model they want, and
loads models as they are asked for. So nothing here needs a lock, a slow reader holds nobody up, and each answer is what
its user would have got alone. Ending the iteration (`break`, `close()`, a cancelled task) stops the work within one
token.
"""

import asyncio
import codecs
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Literal, Self

from serve.errors import RequestError, UserError
from serve.limits import Message, Sampling, check_request
from serve.llama import LlamaModel
from serve.models import Model
from serve.settings import Settings

STOPPING = "The server is stopping."

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """The next bit of an answer, and how far the answer has come."""

    text: str  # whole characters only; may be empty
    tokens: int  # generated so far
    seconds: float  # since the request's turn came, prompt included
    generating: float  # seconds since the first token
    finish: Finish | None = None  # set in the last piece: the model ended its turn, or a limit was reached

    @property
    def tokens_per_second(self) -> float:
        """Speed of the generation alone, without the prompt; 0 until there are two tokens."""
        return (self.tokens - 1) / self.generating if self.generating else 0.0


class _Cancelled(Exception):
    """Whoever asked has gone or has pressed stop."""


@dataclass
class _Request:
    model: str
    messages: Sequence[Message]
    sampling: Sampling
    deliver: Callable[[Piece | Exception], None]
    cancelled: threading.Event = field(default_factory=threading.Event)


class Engine:
    """Models and the worker that runs them. Close it, or use it as a context manager."""

    def __init__(self, models: Mapping[str, Model], settings: Settings) -> None:
        """Load the model to begin with and start the worker. Raises UserError if it cannot be loaded."""
        self.models = models
        self.default = self._default(settings.model)
        self._settings = settings
        self._loaded: OrderedDict[str, LlamaModel] = OrderedDict()  # the one used last stands last
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._load(self.default)
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout: float = 5) -> None:
        """Stop within a token, tell those who wait, free the models. Waits up to `timeout` seconds."""
        self._closing.set()
        self._requests.put(None)
        self._worker.join(timeout)

    def stream(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[Piece]:
        """Yield the answer piece by piece; the last piece has `finish` set.

        Raises RequestError for a request out of bounds, longer than the context, or cut off by `close`.
        """
        pieces: queue.SimpleQueue[Piece | Exception] = queue.SimpleQueue()
        request = self._submit(model, messages, sampling, pieces.put)
        try:
            while True:
                piece = _unwrap(pieces.get())
                yield piece
                if piece.finish:
                    return
        finally:
            request.cancelled.set()

    async def astream(self, model: str, messages: Sequence[Message], sampling: Sampling) -> AsyncIterator[Piece]:
        """The same as `stream` for an event loop."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()

        def deliver(piece: Piece | Exception) -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever was listening
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        request = self._submit(model, messages, sampling, deliver)
        try:
            while True:
                piece = _unwrap(await pieces.get())
                yield piece
                if piece.finish:
                    return
        finally:
            request.cancelled.set()

    def _default(self, wanted: str) -> str:
        if wanted and wanted not in self.models:
            raise UserError(f"SERVE_MODEL={wanted}: there is no such model; there is {', '.join(self.models)}")
        return wanted or next(iter(self.models))

    def _submit(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        deliver: Callable[[Piece | Exception], None],
    ) -> _Request:
        check_request(model, messages, sampling, self.models, self._settings)
        if self._closing.is_set():
            raise RequestError(STOPPING)
        request = _Request(model, messages, sampling, deliver)
        self._requests.put(request)
        return request

    def _work(self) -> None:
        """The worker: one request after another until the engine closes."""
        while (request := self._requests.get()) is not None and not self._closing.is_set():
            self._serve(request)
        while request is not None:  # those still waiting; close() put a None behind them
            request.deliver(RequestError(STOPPING))
            request = self._requests.get()
        while self._loaded:
            self._loaded.popitem()[1].close()

    def _serve(self, request: _Request) -> None:
        """Answer one request; whatever goes wrong is its user's to hear, and the worker goes on."""
        try:
            self._check(request)
            self._answer(request)
        except _Cancelled:
            pass
        except UserError as error:  # the model's file was whole when the server started and is not now
            request.deliver(RequestError(str(error)))
        except Exception as error:
            request.deliver(error)

    def _answer(self, request: _Request) -> None:
        started = time.monotonic()
        model = self._load(request.model)
        prompt = model.prompt(request.messages)
        for _ in model.prefill(prompt):
            self._check(request)

        # A character's bytes may come in several tokens; bytes that never make a character are dropped.
        characters = codecs.getincrementaldecoder("utf-8")("ignore")
        limit = min(request.sampling.max_tokens, model.context - len(prompt))
        tokens, first, now = 0, 0.0, time.monotonic()
        with closing(model.generate(request.sampling, limit)) as generated:
            for token in generated:
                self._check(request)
                now = time.monotonic()
                tokens, first = tokens + 1, first or now
                request.deliver(Piece(characters.decode(model.piece(token)), tokens, now - started, now - first))
        finish: Finish = "length" if tokens == limit else "stop"
        request.deliver(Piece("", tokens, now - started, now - (first or now), finish))

    def _check(self, request: _Request) -> None:
        """Called between any two steps of llama.cpp: end a request that nobody wants any more."""
        if self._closing.is_set():
            raise RequestError(STOPPING)
        if request.cancelled.is_set():
            raise _Cancelled

    def _load(self, name: str) -> LlamaModel:
        """The model, loaded if it is not; beyond the number kept, the one unused for longest goes first."""
        if name not in self._loaded:
            while len(self._loaded) >= self._settings.loaded:
                self._loaded.popitem(last=False)[1].close()
            self._loaded[name] = LlamaModel(self.models[name].path, self._settings.context, self._settings.threads)
        self._loaded.move_to_end(name)
        return self._loaded[name]


def _unwrap(piece: Piece | Exception) -> Piece:
    if isinstance(piece, Exception):
        raise piece
    return piece
