"""An OpenAI-compatible endpoint: asked several things at once, and again where it falters."""

import json
import logging
import os
import re
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, cast
from urllib.error import HTTPError

from common.errors import UserError
from common.words import counted
from pipeline.core.config import JudgeSettings, validate_judge

logger = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds until the same is asked again
LONGEST_WAIT = 60.0  # seconds, whatever the endpoint asks for
FALTERS = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses after which another try may succeed
DECLINES = (400, 413, 422)  # of one request: it is too long, say
MOST_BYTES = 1 << 22  # of a response
SHOWN = 200  # characters of what an endpoint says of an error

Messages = list[dict[str, str]]


class FalteredError(Exception):
    """The endpoint did not answer, and may the next time."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait  # seconds that it asks for


class DeclinedError(Exception):
    """The endpoint does not answer this one request."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A request is not sent on to elsewhere, and its key neither."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """Where judgements come from."""

    url: str
    model: str
    key: str | None
    seconds: float  # of one request
    max_tokens: int  # of an answer
    at_once: int  # requests

    def ask_all(self, conversations: Sequence[Messages]) -> Iterator[tuple[int, str]]:
        """Yield the number of each conversation and the answer, as it comes; of one that it declines an empty text.

        Raises:
            UserError: it cannot be reached, refuses the key, or declines each of them.
        """
        waiting: SimpleQueue[int] = SimpleQueue()
        done: SimpleQueue[tuple[int, str | Exception]] = SimpleQueue()
        for number in range(len(conversations)):
            waiting.put(number)
        for _ in range(min(self.at_once, len(conversations))):  # that end with the process, whatever they wait for
            Thread(target=self._work, args=(conversations, waiting, done), daemon=True).start()
        try:
            yield from self._gather(len(conversations), done)
        finally:
            _drain(waiting)

    def _gather(self, count: int, done: "SimpleQueue[tuple[int, str | Exception]]") -> Iterator[tuple[int, str]]:
        """Yield answers; what is declined comes last, once something was answered: else it is no single request's."""
        declined: dict[int, DeclinedError] = {}
        for _ in range(count):
            number, found = done.get()
            if isinstance(found, DeclinedError):
                declined[number] = found
            elif isinstance(found, Exception):
                raise found
            else:
                yield number, found
        if declined and len(declined) == count:
            raise self._error(f"declines every request ({next(iter(declined.values()))})")
        if declined:
            logger.warning(f"the judge declines {counted(len(declined), 'request')} ({next(iter(declined.values()))})")
        yield from ((number, "") for number in declined)

    def _work(
        self,
        conversations: Sequence[Messages],
        waiting: "SimpleQueue[int]",
        done: "SimpleQueue[tuple[int, str | Exception]]",
    ) -> None:
        while (number := _next(waiting)) is not None:
            try:
                done.put((number, self.ask(conversations[number])))
            except DeclinedError as error:
                done.put((number, error))
            except Exception as error:  # raised again by whoever waits; nobody asks for more
                _drain(waiting)
                done.put((number, error))

    def ask(self, messages: Messages) -> str:
        """Return the answer to a conversation.

        Raises:
            DeclinedError: to this one there is none.
            UserError: there is none to any.
        """
        for wait in (*WAITS, None):
            try:
                return self._once(messages)
            except FalteredError as error:
                if wait is None:
                    raise self._error(f"does not answer ({error}), {len(WAITS) + 1} times in a row") from error
                time.sleep(min(max(wait, error.wait), LONGEST_WAIT))
        raise AssertionError  # the last try returns or raises

    def _once(self, messages: Messages) -> str:
        asked = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": self.max_tokens}
        headers = {"Content-Type": "application/json", "User-Agent": "tunesmith"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(  # noqa: S310 -- http or https, as `endpoint` sees to
            f"{self.url}/chat/completions", json.dumps(asked).encode(), headers
        )
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self.seconds) as response:
                return _content(_read(response, self.seconds))
        except HTTPError as error:
            raise self._of_status(error) from None
        except (OSError, HTTPException) as error:
            what = str(getattr(error, "reason", error)) or type(error).__name__
            raise FalteredError(self._shown(what)) from None

    def _of_status(self, error: HTTPError) -> Exception:
        try:
            body = _read(cast(HTTPResponse, error.fp), self.seconds).decode(errors="replace")
        except (OSError, HTTPException):
            body = ""
        what = self._shown(f"HTTP {error.code}: {body or error.reason}")
        if error.code in FALTERS:
            return FalteredError(what, _seconds(error.headers.get("Retry-After")))
        return DeclinedError(what) if error.code in DECLINES else self._error(f"answers {what}")

    def _error(self, what: str) -> UserError:
        return UserError(
            f"the judge at {self.url} {what}; what it has answered is kept: mend evaluate.judge or wait, and run the "
            "same command again"
        )

    def _shown(self, text: str) -> str:
        """Return a text of the endpoint's on one line, without the key that it may repeat."""
        return " ".join((text.replace(self.key, "KEY") if self.key else text).split())[:SHOWN]


def endpoint(settings: JudgeSettings) -> Endpoint | None:
    """Return the endpoint that the settings name; None where they name none.

    Raises:
        UserError: what they say of it cannot be; no message has the key.
    """
    if settings.url is None:
        if lonely := next((key for key in ("model", "key", "votes") if getattr(settings, key) is not None), None):
            raise UserError(f"evaluate.judge.{lonely} is set, and evaluate.judge.url names no endpoint; set it, too")
        return None
    validate_judge(settings)
    if not settings.model:
        raise UserError("evaluate.judge.url names an endpoint, and evaluate.judge.model no model of it; set it")
    return Endpoint(
        settings.url.rstrip("/"),
        settings.model,
        _key(settings.key),
        settings.seconds,
        settings.max_tokens,
        settings.at_once,
    )


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        found = "is not set" if not key else "has characters that no key has"
        raise UserError(f"the environment variable that evaluate.judge.key names {found}; export it")
    return key


def _read(response: HTTPResponse, seconds: float) -> bytes:
    """Return a body that comes within so many seconds: a socket's own limit begins anew with each byte.

    Raises:
        TimeoutError: it takes longer.
    """
    body, until = bytearray(), time.monotonic() + seconds
    while len(body) < MOST_BYTES and (part := response.read1(MOST_BYTES - len(body))):
        body += part
        if time.monotonic() > until:
            raise TimeoutError("timed out")
    return bytes(body)


def _content(body: bytes) -> str:
    with suppress(ValueError, RecursionError):
        match json.loads(body):
            case {"choices": [{"message": {"content": str() | None as content}}, *_]}:
                return content or ""
    raise FalteredError("what it says is no chat completion")


def _seconds(text: str | None) -> float:
    """Return what Retry-After asks for; a date counts as nothing."""
    return float(text) if text and re.fullmatch(r"\d{1,6}(\.\d+)?", text) else 0.0


def _next(waiting: "SimpleQueue[int]") -> int | None:
    try:
        return waiting.get_nowait()
    except Empty:
        return None


def _drain(waiting: "SimpleQueue[int]") -> None:
    while _next(waiting) is not None:
        pass
