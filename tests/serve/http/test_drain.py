import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from servers import started_server, wait_until

HI: Any = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
FOR_EVER: Any = HI | {"model": "endless", "max_tokens": 1 << 17}
WORDS = 500  # of an answer that ends: it takes a while


class Answer(threading.Thread):
    """A streamed answer, read while the test goes on."""

    def __init__(self, url: str, request: dict[str, Any]) -> None:
        super().__init__()
        self.url, self.request = f"{url}/v1/chat/completions", request | {"stream": True}
        self.events: list[dict[str, Any]] = []
        self.done = False  # whether it ended as it should
        self.start()

    def run(self) -> None:
        with httpx.stream("POST", self.url, json=self.request, timeout=60) as answer:
            for line in filter(None, answer.iter_lines()):
                self.done = line == "data: [DONE]"
                if not self.done:
                    self.events.append(json.loads(line.removeprefix("data: ")))

    @property
    def words(self) -> int:
        return sum(bool(choice["delta"].get("content")) for event in self.events for choice in event.get("choices", ()))

    @property
    def error(self) -> str | None:
        return self.events[-1].get("error", {}).get("message")


@pytest.fixture
def limits(folder: Path) -> Iterator[dict[str, Any]]:
    return {"models": folder, "model": "endless", "context": 1 << 18, "max_tokens": 1 << 17, "rate": 0}


def test_what_was_taken_in_ends_and_what_comes_is_refused(limits: dict[str, Any], tmp_path: Path) -> None:
    with started_server(tmp_path / "log.txt", until="/readyz", drain=600, **limits) as (url, process):
        holding = Answer(url, FOR_EVER)
        ending = Answer(url, FOR_EVER | {"max_tokens": WORDS})
        wait_until(lambda: holding.words and ending.words)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        refused = httpx.post(f"{url}/v1/chat/completions", json=FOR_EVER)
        assert (refused.status_code, refused.json()["error"]["message"]) == (503, "The server is stopping.")
        assert httpx.get(f"{url}/healthz").status_code == 200
        ending.join()
        assert (ending.done, ending.words) == (True, WORDS)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)  # the second
        assert process.wait(20) == 0
        holding.join()
        assert (holding.done, holding.error) == (False, "The server is stopping.")
    assert "Traceback" not in (tmp_path / "log.txt").read_text()


def test_a_lame_duck_says_that_others_are_to_be_asked_and_answers(limits: dict[str, Any], tmp_path: Path) -> None:
    with started_server(tmp_path / "log.txt", until="/readyz", lameduck=600, **limits) as (url, process):
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 503)
        answer = httpx.post(f"{url}/v1/chat/completions", json=FOR_EVER | {"max_tokens": 5})
        assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 5)
        process.send_signal(signal.SIGTERM)  # the second
        assert process.wait(20) == 0


def test_what_waits_in_the_queue_is_answered_too(limits: dict[str, Any], tmp_path: Path) -> None:
    with started_server(tmp_path / "log.txt", until="/readyz", drain=600, slots=1, **limits) as (url, process):
        answers = [Answer(url, FOR_EVER | {"max_tokens": WORDS}) for _ in range(3)]
        wait_until(lambda: "tunesmith_waiting 2.0" in httpx.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        for answer in answers:
            answer.join()
        assert [(answer.done, answer.words) for answer in answers] == [(True, WORDS)] * 3


def test_beyond_the_bound_answers_are_cut_off_and_their_readers_told(limits: dict[str, Any], tmp_path: Path) -> None:
    with started_server(tmp_path / "log.txt", drain=1, **limits) as (url, process):
        stream = Answer(url, FOR_EVER)
        page = Client(url, verbose=False).submit("hi", max_tokens=1 << 17, api_name="/chat")
        wait_until(lambda: stream.words and page.outputs())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        stream.join()
        assert (stream.done, stream.error) == (False, "The server is stopping.")
        assert "The server is stopping." in str(page.exception(20))
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
