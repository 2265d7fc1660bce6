"""The connections that are held: how many, and how long one may keep the server waiting.

Whoever owes the server the rest of a request is given so many seconds for it. Where no more connections can be held,
the one that has been waited for longest makes room, and so a new one is always heard unless all are at work.
"""

import asyncio
import resource
import time
from collections import Counter, OrderedDict, defaultdict

from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.http.middleware import client
from serve.settings import Settings

DESCRIPTORS = 64  # kept for the rest: models, feedback, the Hub
BODY_RATE = 1000  # bytes that are worth another second
WRITE_SECONDS = 60  # in which a client takes something of its answer
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def raise_descriptors() -> int:
    """Take as many descriptors as the system gives; return how many those are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else 1 << 20


class Connections:
    """All that are held, by client, and those that are waited for, the longest first."""

    def __init__(self, settings: Settings, descriptors: int) -> None:
        """Bound them by client and in all; behind a proxy all are one client's."""
        room = max(descriptors - DESCRIPTORS, 8)
        self.seconds = settings.request_seconds
        self._most = min(settings.connections, room) if settings.proxy else room
        self._most_of_one = self._most if settings.proxy else min(settings.connections, room // 2)
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[BoundedProtocol, None] = OrderedDict()
        self._waiting_of: defaultdict[str, OrderedDict[BoundedProtocol, None]] = defaultdict(OrderedDict)

    def admit(self, connection: "BoundedProtocol") -> bool:
        """Count one in, for which another may have to go; False if none can."""
        full = self._held.total() >= self._most
        crowded = self._held[connection.whom] >= self._most_of_one
        if (full or crowded) and not self.make_room(self._waiting_of[connection.whom] if crowded else None):
            return False
        self._held[connection.whom] += 1
        return True

    def make_room(self, among: "OrderedDict[BoundedProtocol, None] | None" = None) -> bool:
        """Close the one that has been waited for longest; False if each is at work."""
        waiting = self._waiting if among is None else among
        if not waiting:
            return False
        next(iter(waiting)).give_up()
        return True

    def leave(self, connection: "BoundedProtocol") -> None:
        """Count one out."""
        self.work(connection)
        self._held[connection.whom] -= 1
        if not self._held[connection.whom]:
            del self._held[connection.whom]
            self._waiting_of.pop(connection.whom, None)

    def wait(self, connection: "BoundedProtocol") -> None:
        """Note that a client owes something from now on."""
        for waiting in (self._waiting, self._waiting_of[connection.whom]):
            waiting[connection] = None
            waiting.move_to_end(connection)

    def work(self, connection: "BoundedProtocol") -> None:
        """Note that a request is whole."""
        for waiting in (self._waiting, self._waiting_of[connection.whom]):
            waiting.pop(connection, None)


class BoundedProtocol(H11Protocol):
    """uvicorn's, with a deadline for whatever the client owes: headers, a body, or to read its answer."""

    all_held: Connections  # set by a subclass: uvicorn makes one of these for each connection
    whom = ""
    _admitted = False
    _owed: tuple[str, object] = ("", None)  # and for which request
    _since, _received = 0.0, 0
    _deadline: asyncio.TimerHandle | None = None
    _write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or turn the connection away."""
        super().connection_made(transport)
        self.whom = client(self.client[0] if self.client else "")
        self._admitted = self.all_held.admit(self)
        if not self._admitted:
            transport.write(BUSY)
            transport.close()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a part of a request."""
        if not self._admitted:
            return
        self._received += len(data)
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless the rest of this one has not been read."""
        unread = self.cycle.more_body
        super().on_response_complete()
        if unread:
            self.transport.close()
        self._watch()

    def pause_writing(self) -> None:
        """Give the client some time to take what is written."""
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_SECONDS, self.give_up)

    def resume_writing(self) -> None:
        """Go on: the client takes it."""
        super().resume_writing()
        _cancel(self._write_deadline)

    def give_up(self) -> None:
        """Close the connection, whatever the client may still send."""
        self._forget()
        self.transport.abort()

    def _should_upgrade(self) -> bool:
        return False  # there are no websockets here, and no word in the log for each try

    def _watch(self) -> None:
        """Set the deadline for what the client owes now."""
        if not self._admitted or self.transport.is_closing():
            return
        cycle = self.cycle
        owed = "headers" if cycle is None or cycle.response_complete else "body" if cycle.more_body else ""
        if (owed, cycle) == self._owed:
            return
        self._owed, self._since, self._received = (owed, cycle), time.monotonic(), 0
        _cancel(self._deadline)
        if owed:
            self._deadline = self.loop.call_later(self.all_held.seconds, self._check)
            self.all_held.wait(self)
        else:
            self.all_held.work(self)

    def _check(self) -> None:
        """Give up on the client, unless a body that it sends has earned it more time."""
        earned = self._received / BODY_RATE if self._owed[0] == "body" else 0
        left = self._since + self.all_held.seconds + earned - time.monotonic()
        if left > 0:
            self._deadline = self.loop.call_later(left, self._check)
        else:  # what it has not yet taken of an answer before it may still have
            self._deadline = self.loop.call_later(WRITE_SECONDS, self.give_up)
            self.transport.close()

    def _forget(self) -> None:
        _cancel(self._deadline, self._write_deadline)
        if self._admitted:
            self._admitted = False
            self.all_held.leave(self)


def _cancel(*timers: asyncio.TimerHandle | None) -> None:
    for timer in timers:
        if timer:
            timer.cancel()
