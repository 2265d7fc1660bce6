"""A hub on this machine with datasets: of a JSONL file, of splits in Parquet, of a script, and one cut short."""

import io
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

COMMIT = "5f0c2d" + "1" * 34


def json_lines(word: str, count: int) -> bytes:
    """Rows of questions and answers."""
    rows = [{"question": f"{word} {n} even?", "answer": str(n % 2 == 0)} for n in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(word: str, count: int) -> bytes:
    """Rows whose answers are whole numbers in a column of floats."""
    table = pa.table(
        {"question": [f"{word} {n} + 1?" for n in range(count)], "answer": [n + 1.0 for n in range(count)]}
    )
    pq.write_table(table, buffer := io.BytesIO())
    return buffer.getvalue()


def record(schema: int, number: int, **said: Any) -> dict[str, Any]:
    """A record of feedback, as the server writes it."""
    asked = [{"role": "user", "content": f"What is {number}?"}]
    kind = "answer" if "answer" in said else "comparison"
    time = f"2026-11-{number:02}T00:00:00+00:00"
    return {"schema": schema, "kind": kind, "id": f"{number}", "time": time, "messages": asked, "sampling": {}, **said}


FEEDBACK = {  # what records have differs, by their kind and by their schema
    "feedback-1.jsonl": [record(1, number, answer={"text": f"It is {number}."}, verdict="good") for number in (1, 2)],
    "feedback-2.jsonl": [
        record(2, 3, left={"text": "It is 3."}, right={"text": "Who knows?"}, vote="left", visit={"visitor": "v"}),
        record(2, 2, answer={"text": "It is 2.", "thought": "Two."}, verdict="bad", reasons=["too_short"]),
    ],
}


def entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}


SPLITS = {
    "train-00000-of-00001.parquet": parquet("train", 30),
    "validation-00000-of-00001.parquet": parquet("validation", 4),
    "test-00000-of-00001.parquet": parquet("test", 5),
}


class HubHandler(BaseHTTPRequestHandler):
    """As much of the hub's interface as loading and streaming them takes."""

    protocol_version = "HTTP/1.1"
    files: ClassVar = {
        "owner/chats": {"chats.jsonl": json_lines("Is", 6)},
        "owner/splits": SPLITS,
        "owner/feedback": {
            name: "".join(json.dumps(row) + "\n" for row in rows).encode() for name, rows in FEEDBACK.items()
        },
        "owner/script": {"script.py": b"import datasets\n"},
        "owner/broken": {"train.parquet": SPLITS["train-00000-of-00001.parquet"][:-200]},
    }

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = next((name for name in self.files if f"datasets/{name}" in path), "")
        files = self.files.get(name, {})
        if path in (f"/api/datasets/{name}", f"/api/datasets/{name}/revision/{COMMIT}"):
            self.answer({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})
        elif path == f"/api/datasets/{name}/tree/{COMMIT}":
            self.answer([entry(file, content) for file, content in files.items()])
        elif path.startswith(f"/datasets/{name}/resolve/{COMMIT}/"):
            self.answer_file(files, path.rsplit("/", 1)[1])
        elif path.startswith(f"/datasets/{name}/resolve/"):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound" if name else "RepoNotFound"})

    def do_POST(self) -> None:
        """Say of paths what they are, as streaming asks."""
        path = self.path.split("?")[0]
        length = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(length))["paths"]
        name = next((name for name in self.files if f"/api/datasets/{name}/paths-info/{COMMIT}" == path), "")
        files = self.files.get(name, {})
        self.answer([entry(file, files[file]) for file in asked if file in files])

    do_HEAD = do_GET  # noqa: N815

    def answer(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer_file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self.send(404, b"", {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{name}"'}
        if bounds := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(bounds[1]), min(int(bounds[2] or len(files[name])), len(files[name]) - 1)
            said = {"Content-Range": f"bytes {first}-{last}/{len(files[name])}"}
            self.send(206, files[name][first : last + 1], headers | said)
        else:
            self.send(200, files[name], headers)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
