"""The web server: it listens from the beginning, starts the rest beside that, and stops when the last answer is out."""

import asyncio
import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serve.engine import Engine
from serve.http.connections import BoundedProtocol, Connections, raise_descriptors
from serve.settings import Settings

FLUSH_SECONDS = 1  # for the last words to reach their readers
POLL_SECONDS = 0.05
LINES, LINES_SECONDS = 10, 60  # of one kind that are logged, and in what time

logger = logging.getLogger("uvicorn.error")


class Server(uvicorn.Server):
    """Runs an application, and in a thread the start of what it needs.

    A first SIGTERM or Ctrl-C turns new requests away, SERVE_LAMEDUCK seconds after it has told whoever asks for its
    state, and lets answers under way end; a second one cuts them off. The log has warnings alone, and so no word of a
    conversation.
    """

    def __init__(self, app: ASGIApp, start: "Callable[[Server], None]", settings: Settings) -> None:
        """Make a server for an application on ASGI.

        `start` brings up what the application needs: it sets `engine` and enters what belongs to the event loop.
        """
        # It warns of each word for a client that has just left, which a busy machine takes a moment to notice.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        for log in (logger, logging.getLogger("asyncio")):
            log.addFilter(FewLines())
        self._connections = connections = Connections(settings, raise_descriptors())

        class Protocol(BoundedProtocol):
            all_held = connections

        # A client's address is for the gate to find out (SERVE_PROXY): uvicorn would believe anyone on this machine.
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            http=Protocol,
            ws="none",
            timeout_graceful_shutdown=FLUSH_SECONDS,
        )
        super().__init__(config)
        self.engine: Engine | None = None
        self.failure: BaseException | None = None  # why the start came to nothing
        self._start, self._settings = start, settings
        self._entered = AsyncExitStack()
        self._entering = asyncio.Lock()  # lest one be entered while all are left
        self._left = False  # whether all have been
        self._loop: asyncio.AbstractEventLoop

    def enter(self, context: AbstractAsyncContextManager) -> None:
        """Enter it in the event loop until the server stops. For `start`, which runs in another thread.

        Does nothing when the server has stopped meanwhile: nobody would leave it then.
        """
        if not self._left:  # the loop may be closed by now
            asyncio.run_coroutine_threadsafe(self._enter(context), self._loop).result()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and begin to start the rest."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._log)
        await super().startup(sockets)
        threading.Thread(target=self._bring_up, name="start", daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the answers end, then the connections."""
        await self._drain()
        # Each open page holds a connection for as long as it is open, and is cut off without a word in the log.
        logger.setLevel(logging.CRITICAL)
        await super().shutdown(sockets)
        async with self._entering:
            self._left = True
            await self._entered.aclose()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; when asked for the second time, at once."""
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)

    def _log(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Log what went wrong beside any request."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):  # and asyncio tries again
            self._connections.make_room()
            logger.warning("No descriptor is left for another connection: allow the server more (ulimit -n).")
        else:
            loop.default_exception_handler(context)

    async def _enter(self, context: AbstractAsyncContextManager) -> None:
        async with self._entering:
            if not self._left:
                await self._entered.enter_async_context(context)

    def _bring_up(self) -> None:
        try:
            self._start(self)
        except BaseException as error:
            if not self.should_exit:  # else the stop has broken it off
                self.failure, self.should_exit = error, True

    async def _drain(self) -> None:
        """Wait for the answers that were taken in, up to the bound; what is left then is cut off, and told so."""
        engine = self.engine
        if engine is None:
            return
        engine.retire()
        await self._wait(self._settings.lameduck, lambda: True)
        engine.drain()
        await self._wait(self._settings.drain, lambda: engine.busy)
        await asyncio.to_thread(engine.close, FLUSH_SECONDS)

    async def _wait(self, seconds: float, wanted: Callable[[], bool]) -> None:
        """Wait for as long as it is wanted, up to so many seconds; at a second signal no longer."""
        deadline = asyncio.get_running_loop().time() + seconds
        while wanted() and not self.force_exit and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(POLL_SECONDS)


class FewLines(logging.Filter):
    """Lets so many lines of a kind into the log in a while; the next one then says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, tuple[float, int]] = {}  # by the text before its values; since when, and lines

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written."""
        kind, now = str(record.msg)[:100], time.monotonic()
        since, lines = self._kinds.get(kind, (now, 0))
        if now - since >= LINES_SECONDS:
            if lines > LINES:
                record.msg = f"{record.msg} ({lines - LINES} more like the last were left out)"
            since, lines = now, 0
        self._kinds[kind] = since, lines + 1
        return lines < LINES
