"""Rolling out and back by the files of `tunesmith deploy compose`, while visitors ask: no conversation is dropped.

HAProxy comes from Debian's packages here, since an image of it may be out of reach.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from servers import answers, free_port, wait_until
from tiny_gguf import write_scripted

from pipeline import cli

pytestmark = [pytest.mark.images, pytest.mark.long, pytest.mark.timeout(2400)]

CHROMIUM = Path("/usr/bin/chromium")
PROXY = """\
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
USER haproxy
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
"""
PREFIX = "tunesmith-rolling"
WORDS = 60  # tokens of an answer
LONG = 2000  # of one that is under way while its server is told to stop
HI = [{"role": "user", "content": "hi"}]
LIMITS = {"SERVE_CONTEXT": 1 << 16, "SERVE_MAX_TOKENS": 1 << 15, "SERVE_RATE": 0}

Compose = Callable[..., None]


def write_says(path: Path, word: str) -> None:
    """Writes a model that says a word and a full stop by turns."""
    write_scripted(path, [f" {word}".encode(), b"."], loop=True, context=1 << 17)


@pytest.fixture(scope="module")
def versions(
    engine: docker.DockerClient, images: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """Two versions of the chat as images, whose models have one name: the first says one, the second two, for ever."""
    made = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        write_says(folder / "chat.gguf", name)
        (folder / "Dockerfile").write_text("FROM tunesmith-serve:test\nCOPY *.gguf /models/\n")
        made.append(f"{PREFIX}:{name}")
        engine.images.build(path=str(folder), tag=made[-1])
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "Dockerfile").write_text(PROXY)
    engine.images.build(path=str(folder), tag=f"{PREFIX}:proxy")
    yield made
    for tag in (*made, f"{PREFIX}:proxy"):
        engine.images.remove(tag, force=True)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def folder(versions: list[str], port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `tunesmith deploy compose` writes."""
    monkeypatch.chdir(tmp_path)
    write_says(Path("chat.gguf"), "one")
    settings = [part for name, value in LIMITS.items() for part in ("--set", f"{name}={value}")]
    given = ["--image", versions[0], "--model", "chat.gguf", "--port", str(port), *settings]
    assert cli.run(["deploy", "compose", *given]) == 0
    return Path("deploy/compose").resolve()


@pytest.fixture
def run(compose: list[str], folder: Path) -> Iterator[Compose]:
    """Runs Docker Compose in that folder."""
    environment = os.environ | {"PROXY_IMAGE": f"{PREFIX}:proxy", "COMPOSE_PROJECT_NAME": PREFIX}

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [*compose, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    yield run
    run("--profile", "*", "down", "--volumes", "--timeout", "1")


class Visitor(threading.Thread):
    """Asks again and again until told to stop, and knows who answered and what went wrong."""

    def __init__(self, url: str, words: int = WORDS, once: bool = False, colour: str = "") -> None:
        """`colour`: who served the visitor before."""
        super().__init__()
        self.url, self.words, self.once = f"{url}/v1/chat/completions", words, once
        self.cookies = {"SERVED_BY": colour} if colour else {}
        self.answered_by: list[str] = []
        self.wrong: list[str] = []
        self.begun, self.stop = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with httpx.Client(timeout=180, cookies=self.cookies) as client:  # which keeps cookies, as browsers do
            while not self.stop.is_set():
                try:
                    self.answered_by.append(self.ask(client))
                except (httpx.HTTPError, AssertionError, ValueError) as error:
                    self.wrong.append(f"{type(error).__name__}: {error}")
                if self.once:
                    return

    def ask(self, client: httpx.Client) -> str:
        """Read an answer to its end, and return its first word."""
        asked = {"model": "chat", "messages": HI, "temperature": 0, "max_tokens": self.words}
        texts, ended = list[str](), False
        with client.stream("POST", self.url, json=asked | {"stream": True}) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                ended = ended or data == "[DONE]"
                if line == data or ended:  # a comment, or the end
                    continue
                event: dict[str, Any] = json.loads(data)
                assert "error" not in event, event
                texts += [text for choice in event["choices"] if (text := choice["delta"].get("content"))]
                self.begun.set()
        assert ended, f"cut after {len(texts)}"
        assert len(texts) == self.words
        return texts[0].strip()


@pytest.fixture
def visitors(port: int) -> Iterator[Callable[[], list[Visitor]]]:
    """Lets four visitors in, and out again."""
    inside: list[Visitor] = []

    def enter() -> list[Visitor]:
        inside.extend(Visitor(f"http://127.0.0.1:{port}") for _ in range(4))
        return inside

    yield enter
    for visitor in inside:
        visitor.stop.set()
        visitor.join()


def choose(folder: Path, **images: str) -> None:
    """Names images in .env."""
    choices = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in (choices | images).items()))


def test_nothing_is_dropped_while_versions_take_turns(
    run: Compose, folder: Path, port: int, versions: list[str], visitors: Callable[[], list[Visitor]]
) -> None:
    url = f"http://127.0.0.1:{port}"
    run("up", "--detach", "--wait")
    wait_until(lambda: answers(f"{url}/readyz"))
    inside = visitors()
    wait_until(lambda: all(visitor.answered_by for visitor in inside))

    choose(folder, GREEN=versions[1])
    last = {"blue": "one", "green": "two"}
    for before, after in (("blue", "green"), ("green", "blue"), ("blue", "green")):
        run("up", "--detach", "--wait", after)
        reading = Visitor(url, LONG, once=True, colour=before)
        assert reading.begun.wait(60)
        run("stop", before)
        reading.join()
        assert (reading.wrong, reading.answered_by) == ([], [last[before]])
        seen = [len(visitor.answered_by) for visitor in inside]
        wait_until(lambda: all(len(v.answered_by) > n + 1 for v, n in zip(inside, seen, strict=True)))  # noqa: B023
        assert {visitor.answered_by[-1] for visitor in inside} == {last[after]}

    assert [visitor.wrong for visitor in inside] == [[]] * 4


def test_a_version_that_does_not_start_takes_nobodys_place(run: Compose, folder: Path, port: int) -> None:
    run("up", "--detach", "--wait")
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"))
    choose(folder, GREEN="tunesmith-serve:test")  # has no model inside
    with pytest.raises(AssertionError):
        run("up", "--detach", "--wait", "green")
    visitor = Visitor(f"http://127.0.0.1:{port}", once=True)
    visitor.join()
    assert (visitor.wrong, visitor.answered_by) == ([], ["one"])


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: {CHROMIUM} is not there")
def test_an_open_page_goes_on_with_the_next_version(run: Compose, folder: Path, port: int, versions: list[str]) -> None:
    run("up", "--detach", "--wait")
    wait_until(lambda: answers(f"http://127.0.0.1:{port}/"))
    choose(folder, GREEN=versions[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.goto(f"http://127.0.0.1:{port}")
        message, said = page.get_by_role("textbox", name="Message"), page.locator(".bot.message")
        rolls = (
            ("up", "--detach", "--wait", "green"),
            ("stop", "blue"),
            ("up", "--detach", "--wait", "blue"),
            ("stop", "green"),
        )
        for number, (word, roll) in enumerate(zip(("one", "one", "two", "two", "one"), (*rolls, ()), strict=True)):
            message.fill("hi")
            message.press("Enter")
            expect(said).to_have_count(number + 1)
            expect(said.last).to_contain_text(word)
            expect(page.locator("#message .submit-button")).to_be_visible()
            if roll:
                run(*roll)
        assert [text.split(".")[0].strip() for text in said.all_inner_texts()] == ["one", "one", "two", "two", "one"]
        browser.close()
