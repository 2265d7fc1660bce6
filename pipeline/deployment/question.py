"""The question that a server is asked before it counts as deployed."""

import time
from collections.abc import Callable, Mapping

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
    """Return what the first of a server's models that chats says to a question.

    Args:
        url: the server's.
        headers: that it or a proxy before it asks for.

    Raises:
        UserError: it does not answer, or says nothing.
    """
    try:
        with httpx.Client(base_url=f"{url}/v1", headers=dict(headers), timeout=ANSWER) as client:
            for model in checked(client.get("/models")).json()["data"]:
                asked = {"model": model["id"], "messages": [{"role": "user", "content": QUESTION}]}
                answer = client.post("/chat/completions", json={**asked, "max_tokens": WORDS, "temperature": 0})
                if answer.is_success:  # others turn texts into vectors, say
                    break
            message = checked(answer).json()["choices"][0]["message"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{url} does not answer as the server does: {error or type(error).__name__}") from error
    said = " ".join(str(message.get("content") or message.get("reasoning_content") or "").split())
    if not said:
        raise UserError(f"{url} answers, and says nothing; is the model one that chats?")
    return said


def checked(answer: httpx.Response) -> httpx.Response:
    """Return an answer that is no refusal.

    Raises:
        ValueError: it is one.
    """
    if not answer.is_success:
        raise ValueError(f"HTTP {answer.status_code}, {' '.join(answer.text.split())[:200]}")
    return answer
