"""A small HTTP server in the place of a judge: it answers as a test tells it. And votes of visitors."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.core.config import JudgeSettings
from pipeline.judging.endpoint import Endpoint, endpoint
from serve.feedback.records import Answer, ComparisonRecord, ModelVersion, Record
from serve.feedback.store import FeedbackStore

SETTINGS = JudgeSettings(
    url="http://127.0.0.1:9/v1",
    model="judge",
    key=None,
    votes=None,
    max_pairs=None,
    max_tokens=16,
    seconds=30,
    at_once=1,
)

ASKED = [{"role": "user", "content": "Name a colour."}]
DRIPS = b"drips"  # a body that comes byte by byte, and never ends
# A text; a status with a body; a body as it is; None says nothing ever.
Said = str | tuple[int, str | bytes] | bytes | None
Says = Callable[[str, int], Said]  # of the user's text, and how many requests there were before


@dataclass
class JudgeServer:
    """Where it is, and what it was asked."""

    url: str
    says: Says
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


def at(url: str, **more: object) -> Endpoint:
    """The judge at a URL, by these settings."""
    found = endpoint(replace(SETTINGS, url=url, **more))
    assert found
    return found


def completion(text: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def prefers(word: str) -> Says:
    """A judge for which the reply with a word in it is better; with it in both or neither, a tie."""

    def says(asked: str, before: int) -> str:
        first, second = (part.split("[End")[0] for part in asked.split("[Reply ")[1:])
        found = (word in first) - (word in second)
        return json.dumps({"better": {1: "A", -1: "B", 0: "tie"}[found]})

    return says


@contextmanager
def judge_server(says: Says) -> Iterator[JudgeServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            judge.asked.append(body)
            judge.keys.append(self.headers.get("Authorization"))
            answer = judge.says(body["messages"][-1]["content"], len(judge.asked) - 1)
            if answer is None:
                judge.ended.wait()
                return
            status, content = answer if isinstance(answer, tuple) else (200, answer)
            raw = content if isinstance(content, bytes) else content.encode() if status != 200 else completion(content)
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", str(2**20 if raw is DRIPS else len(raw)))
            self.end_headers()
            while raw is DRIPS and not judge.ended.wait(0.02):
                self.wfile.write(b" ")
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    judge = JudgeServer(f"http://127.0.0.1:{server.server_port}/v1", says)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield judge
    finally:
        judge.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def comparison(vote: str | None, left: str = "Red", right: str = "Blue", **more: object) -> ComparisonRecord:
    answers = (Answer(text, ModelVersion(name)) for text, name in ((left, "a"), (right, "b")))
    one, other = answers
    given = {"blind": True} | more
    return ComparisonRecord(messages=ASKED, sampling={}, left=one, right=other, vote=vote, **given)


def kept(folder: Path, records: Sequence[Record]) -> Path:
    """The records as the chat server keeps them."""
    with FeedbackStore(folder) as store:
        for record in records:
            store.add(record)
    return folder
