"""The question that a server is asked before it counts as deployed."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from common.errors import UserError

QUESTION = "Hello! What can you do?"
WORDS = 32  # tokens of the answer at most
POLL = 1.0  # seconds
ANSWER = 300.0  # seconds that the answer may take: a large model on two slow processors


def wait_until_ready(
    url: str, headers: Mapping[str, str], seconds: float, check_alive: Callable[[], None] = lambda: None
) -> None:
    """Wait until a server has its models in memory.

    Args:
        url: the server's.
        headers: that a proxy before it asks for.
        seconds: to wait at most.
        check_alive: raises an error where there is nothing left to wait for.

    Raises:
        UserError: it took longer.
    """
    deadline = time.monotonic() + seconds
    while True:
        check_alive()
        try:
            answer = httpx.get(f"{url}/readyz", headers=dict(headers), timeout=10)
            said = f"HTTP {answer.status_code}"
            if answer.is_success:
                return
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
        if time.monotonic() > deadline:
            raise UserError(f"{url}/readyz does not say that it is ready after {seconds:.0f} s ({said})")
        time.sleep(POLL)


def ask(url: str, headers: Mapping[str, str]) -> str:
    """Return what the model that is picked at first says to a question.

    Args:
        url: the server's.
        headers: that it or a proxy before it asks for.

    Raises:
        UserError: it does not answer, or says nothing.
    """
    asked = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": WORDS, "temperature": 0}
    try:
        answer = httpx.post(f"{url}/v1/chat/completions", json=asked, headers=dict(headers), timeout=ANSWER)
    except httpx.HTTPError as error:
        raise UserError(f"{url} does not answer: {error or type(error).__name__}") from error
    if not answer.is_success:
        raise UserError(f"{url} does not answer: HTTP {answer.status_code}, {' '.join(answer.text.split())[:200]}")
    try:
        message: dict[str, Any] = answer.json()["choices"][0]["message"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{url} is no server of this kind: {' '.join(answer.text.split())[:200]}") from error
    said = " ".join(str(message.get("content") or message.get("reasoning_content") or "").split())
    if not said:
        raise UserError(f"{url} answers, and says nothing; is the model one that chats?")
    return said
