import base64
import errno
import fcntl
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mounts import may_mount
from servers import ROOT, free_port, wait_until

from common.errors import UserError
from llama.errors import RequestError
from llama.types import Message
from pipeline.core.data_settings import DataSettings
from pipeline.stages.prepare import prepare
from serve.feedback import (
    COLUMNS,
    COMMENT_CHARS,
    CONSENT,
    REASONS,
    Answer,
    AnswerRecord,
    ComparisonRecord,
    FeedbackStore,
    ModelVersion,
    Record,
    Timings,
    Visit,
    now,
    read_records,
)
from serve.feedback.records import EDITED_CHARS

REPOSITORY = "owner/chat-feedback"
SMALL = ModelVersion("small", "0123456789abcdef", "Q4_K_M")
LARGE = ModelVersion("large", None, "Q8_0", "large.gguf", "89" * 32)
VISIT, OTHER = (Visit(visitor, "talk", CONSENT) for visitor in ("ab" * 16, "cd" * 16))

# Adds records until it is ended, or until the store refuses one; says each id after `add` has returned.
ADD = """
import sys
from dataclasses import asdict
from pathlib import Path
from serve.errors import RequestError
from serve.feedback import *
from serve.limits import Sampling
{before}
store, question = FeedbackStore(Path(sys.argv[1])), [{{"role": "user", "content": "hi"}}]
for number in range(int(sys.argv[2])):
    answer = Answer(str(number) + "x" * 3000, ModelVersion("small"))
    record = AnswerRecord(messages=question, sampling=asdict(Sampling()), answer=answer)
    try:
        store.add(record)
    except RequestError as error:
        print(error, flush=True)
        break
    print(record.id, flush=True)
{after}
"""
# A server with feedback in the middle: SIGTERM ends it as it ends `python -m serve`.
SERVE = """
import signal, sys, time
from pathlib import Path
from serve.feedback import *
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with FeedbackStore(Path(sys.argv[1]), sys.argv[2], every_minutes=60) as store:
    time.sleep(1)  # past the first push
    answer = Answer("xylophone", ModelVersion("small"))
    store.add(AnswerRecord(messages=[{"role": "user", "content": "hi"}], sampling={"temperature": 0.7}, answer=answer))
    print("added", flush=True)
    time.sleep(60)
"""


def asked(question: str) -> list[Message]:
    return [{"role": "user", "content": question}]


def judged(question: str, text: str, verdict: Any = "good", **changes: Any) -> AnswerRecord:
    answer = Answer(text, changes.pop("model", SMALL), changes.pop("timings", Timings(0.5, 2.0, 40, 20.0)))
    fields = {"messages": asked(question), "sampling": {"seed": 1}, "answer": answer, "verdict": verdict}
    return AnswerRecord(**fields | changes)


def compared(question: str, left: str, right: str, vote: Any) -> ComparisonRecord:
    answers = {"left": Answer(left, SMALL), "right": Answer(right, LARGE)}
    return ComparisonRecord(messages=asked(question), sampling={"stop": ["\n"]}, blind=True, vote=vote, **answers)


def keep(folder: Path, *records: Record) -> None:
    with FeedbackStore(folder) as store:
        for record in records:
            store.add(record)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("feedback-*.jsonl"))


def adding(folder: Path, count: int, before: str = "", after: str = "") -> list[str]:
    return [sys.executable, "-c", ADD.format(before=before, after=after), str(folder), str(count)]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "serve.feedback", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# Keeping


def test_records_are_read_back_as_they_were_added(tmp_path: Path) -> None:
    records: list[Record] = [
        judged("Grüße?\n\u2028 \ud800", "ja", reasons=("accurate", "other"), comment="schön"),
        judged("plain", "yes", None, timings=None),
        judged("better", "yes", None, edited="Yes.", visit=VISIT),
        compared("which?", "a", "b", "both_bad"),
    ]
    keep(tmp_path / "new" / "folder", *records)
    reading = read_records(tmp_path / "new" / "folder")
    assert reading.records == records
    assert not reading.skipped
    (file,) = files(tmp_path / "new" / "folder")
    assert file.stat().st_mode & 0o077 == 0
    assert [json.loads(line)["kind"] for line in file.read_bytes().splitlines()] == [
        "answer",
        "answer",
        "answer",
        "comparison",
    ]


def test_records_of_before_are_of_unknown_visitors(tmp_path: Path) -> None:
    record = judged("a", "1", visit=VISIT)
    keep(tmp_path, record)
    (file,) = files(tmp_path)
    value = json.loads(file.read_bytes())
    before = {name: part for name, part in value.items() if name not in ("visit", "edited")} | {"schema": 1}
    for part in ("file", "digest"):
        del before["answer"]["model"][part]
    file.write_text(json.dumps(before) + "\n")
    assert read_records(tmp_path).records == [replace(record, visit=None)]


def test_a_later_record_of_the_same_id_counts(tmp_path: Path) -> None:
    first, other = judged("a", "1"), judged("b", "2")
    keep(tmp_path, first, other)
    keep(tmp_path, replace(first, verdict="bad", time=now()))
    assert {record.id: record.verdict for record in read_records(tmp_path).records} == {
        first.id: "bad",
        other.id: "good",
    }
    assert len(files(tmp_path)) == 2


def test_a_process_that_gets_no_feedback_leaves_no_file(tmp_path: Path) -> None:
    FeedbackStore(tmp_path).close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (judged("a", "1", "great"), "A verdict is good, bad or none, not 'great'"),
        (judged("a", "1", ["good"]), "A verdict is"),
        (compared("a", "1", "2", "middle"), "A vote is left, right, tie, both_bad or none, not 'middle'"),
        (judged("a", "1", reasons=("accurate", "nice")), "Reasons are some of accurate, followed, "),
        (judged("a", "1", reasons=("other",) * 99), "Reasons are some of"),
        (judged("a", "1", reasons=None), "Reasons are some of"),
        (judged("a", "1", comment="x" * (COMMENT_CHARS + 1)), "A comment is a text of at most 2000 characters"),
        (judged("a", "1", comment=None), "A comment is"),
        (judged("a", "1", edited="x" * (EDITED_CHARS + 1)), "An edited answer is kept up to 20000 characters"),
        (judged("a", "1", id="../x"), "A record's id is"),
    ],
)
def test_what_no_page_offers_is_refused(tmp_path: Path, record: Record, text: str) -> None:
    with pytest.raises(RequestError, match=re.escape(text)):
        keep(tmp_path, record)
    assert not files(tmp_path)


def test_eight_threads_and_two_processes_add_at_once(tmp_path: Path) -> None:
    processes = [subprocess.Popen(adding(tmp_path, 100), cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    with FeedbackStore(tmp_path) as store:
        records = [[judged(f"{n}", f"{n}") for n in range(25)] for _ in range(8)]
        threads = [threading.Thread(target=lambda some: [store.add(r) for r in some], args=(some,)) for some in records]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    reading = read_records(tmp_path)
    assert (len(reading.records), reading.files, reading.skipped.total()) == (400, 3, 0)
    assert {record.id for some in records for record in some} <= {record.id for record in reading.records}


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.5])
def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen(adding(tmp_path, 10**9), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    acknowledged = [process.stdout.readline().strip()]
    threading.Timer(delay * random.uniform(0.8, 1.2), process.kill).start()
    acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert process.wait(10) == -signal.SIGKILL
    reading = read_records(tmp_path)
    assert set(acknowledged) <= {record.id for record in reading.records}
    assert len(reading.records) <= len(acknowledged) + 1
    assert reading.skipped.total() <= 1


def test_a_torn_last_line_spoils_no_other(tmp_path: Path) -> None:
    keep(tmp_path, judged("a", "1"), judged("b", "ü"))
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first + 1, len(whole) - 1):
        file.write_bytes(whole[:end])
        reading = read_records(tmp_path)
        assert (len(reading.records), dict(reading.skipped)) == (1, {"torn": 1})


FULL_DISK = """
print(all(line.endswith(b"\\n") for path in Path(sys.argv[1]).glob("feedback-*") for line in path.open("rb")))
print(len(read_records(Path(sys.argv[1])).records))
{room}
store.add(record)
print(len(read_records(Path(sys.argv[1])).records), read_records(Path(sys.argv[1])).files)
"""


def check_full_disk(lines: list[str], error: int) -> None:
    *ids, refusal, whole, kept, kept_then = lines
    assert refusal == f"Your feedback could not be kept ({os.strerror(error)}). Please try again later."
    assert whole == "True"
    assert int(kept) == len(ids) > 5
    assert kept_then == f"{len(ids) + 1} 1"


def test_a_line_that_does_not_fit_is_taken_back_and_the_next_goes_into_the_same_file(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))"
    more = "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, resource.RLIM_INFINITY))"
    done = subprocess.run(
        adding(tmp_path, 100, limit, FULL_DISK.format(room=more)), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "xxx" not in done.stderr
    check_full_disk(done.stdout.splitlines(), errno.EFBIG)


@pytest.mark.skipif(not may_mount(), reason="a full disk needs `unshare -rm` and a mount")
def test_a_full_disk_is_said_and_spoils_nothing(tmp_path: Path) -> None:
    fill = '(Path(sys.argv[1]) / "ballast").write_bytes(bytes(2**16))'
    room = '(Path(sys.argv[1]) / "ballast").unlink()'
    line = adding(tmp_path, 1000, fill, FULL_DISK.format(room=room))
    script = f'mount -t tmpfs -o size=256k none {tmp_path} || exit 99; exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *line], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    check_full_disk(done.stdout.splitlines(), errno.ENOSPC)


def test_a_long_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.feedback.store.FILE_BYTES", 1500)
    keep(tmp_path, *(judged("a", str(number)) for number in range(12)))
    assert 2 < len(files(tmp_path)) < 12
    assert len(read_records(tmp_path).records) == 12


def test_a_removed_file_is_followed_by_another(tmp_path: Path) -> None:
    with FeedbackStore(tmp_path) as store:
        store.add(judged("a", "1"))
        files(tmp_path)[0].unlink()
        store.add(judged("a", "2"))
    (record,) = read_records(tmp_path).records
    assert record.answer.text == "2"


def test_a_visitor_s_records_are_deleted_while_others_add(tmp_path: Path) -> None:
    process = subprocess.Popen(adding(tmp_path, 300), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with FeedbackStore(tmp_path) as store:
        for number in range(40):
            mine, other = judged("a", f"{number}", visit=VISIT), judged("a", f"{number}", visit=OTHER)
            for record in (mine, other, replace(mine, verdict="bad", time=now())):
                store.add(record)
            if number == 20:
                assert len(store.of_visitor(VISIT.visitor)) == 1
                assert store.forget(VISIT.visitor, [other.id, mine.id]) == {mine.id}
            if number % 5 == 4:
                store.forget(VISIT.visitor)
        assert store.of_visitor(VISIT.visitor) == []
        assert len(store.of_visitor(OTHER.visitor)) == 40
    acknowledged = process.communicate(timeout=60)[0].split()
    reading = read_records(tmp_path)
    assert len(acknowledged) == 300
    assert set(acknowledged) <= {record.id for record in reading.records}
    assert (len(reading.records), reading.skipped.total()) == (340, 0)
    assert not any(VISIT.visitor.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_what_cannot_be_deleted_is_said_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with FeedbackStore(tmp_path) as store:
        store.add(judged("a", "1", visit=VISIT))
        before = files(tmp_path)[0].read_bytes()
        monkeypatch.setattr("serve.feedback.files.os.replace", refuse)
        with pytest.raises(RequestError, match="It could not be deleted \\(No space left on device\\)"):
            store.forget(VISIT.visitor)
        assert files(tmp_path)[0].read_bytes() == before


def test_a_record_and_the_name_of_its_file_are_on_the_disk_when_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, synced = os.fsync, {}

    def spy(descriptor: int) -> None:
        fsync(descriptor)
        synced[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", spy)
    with FeedbackStore(tmp_path / "new") as store:
        assert str(tmp_path) in synced
        for number in range(3):
            store.add(judged("a", str(number)))
            (file,) = files(tmp_path / "new")
            assert synced[str(file)] == file.stat().st_size
            assert str(file.parent) in synced


def test_lines_of_other_versions_and_damaged_ones_are_counted_and_passed_over(tmp_path: Path) -> None:
    keep(tmp_path, judged("a", "1"))
    (file,) = files(tmp_path)
    record = json.loads(file.read_bytes())
    lines = [
        record | {"schema": 3, "messages": "elsewhere"},
        record | {"later": "key", "id": "0" * 32, "sampling": {"mirostat": [2]}},
        record | {"kind": "poem"},
        record | {"verdict": ["good"]},
        record | {"answer": None},
        record | {"answer": record["answer"] | {"timings": record["answer"]["timings"] | {"tokens": float("inf")}}},
        {name: value for name, value in record.items() if name != "time"},
        [],
        "text",
    ]
    with file.open("ab") as end:
        end.write("".join(json.dumps(line) + "\n" for line in lines).encode() + b"\xff\n" + b"[" * 100_000 + b"\n")
    reading = read_records(tmp_path)
    assert [record.id for record in reading.records] == [record["id"], "0" * 32]
    assert reading.skipped == {"of an unknown schema": 1, "damaged": 9}
    shown = command("summary", "--folder", tmp_path)
    assert "2 records in 1 file; 9 damaged skipped; 1 of an unknown schema skipped" in shown.stdout


def test_a_folder_that_cannot_be_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make the folder .*file/feedback for feedback: File exists"):
        FeedbackStore(tmp_path / "file" / "feedback")


def test_reasons_have_short_keys_and_labels() -> None:
    assert len({reason.key for reason in REASONS}) == len({reason.label for reason in REASONS}) == len(REASONS)
    assert all(re.fullmatch("[a-z_]+", reason.key) for reason in REASONS)


# Pushing


class Hub:
    """The endpoints of the Hub that a push asks, over real HTTP."""

    def __init__(self) -> None:
        self.private: bool | None = None  # None: there is no repository
        self.contents: dict[str, bytes] = {}
        self.commits: list[list[str]] = []
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.status = 0  # answers everything with it
        self.free = threading.Event()  # while it is not set, nothing is answered
        self.free.set()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.free.set()
        self.server.shutdown()
        self.server.server_close()

    def records(self) -> set[str]:
        return {json.loads(line)["id"] for content in self.contents.values() for line in content.splitlines()}


class HubHandler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body: bytes) -> None:
        hub = self.hub
        hub.requests.append(self.path)
        hub.tokens.add(self.headers["Authorization"])
        hub.free.wait()
        if hub.status:
            return self._send(hub.status, {"error": f"not now: {body.decode()}"})
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            assert (wanted["type"], wanted["organization"], wanted["name"]) == ("dataset", *REPOSITORY.split("/"))
            hub.private = wanted.get("visibility") == "private"
            return self._send(200, {"url": f"{hub.url}/datasets/{REPOSITORY}"})
        if hub.private is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if self.path in (f"/api/datasets/{REPOSITORY}", f"/api/datasets/{REPOSITORY}/revision/main"):
            return self._send(200, {"id": REPOSITORY, "sha": "0" * 40, "private": hub.private})
        if self.path == f"/api/datasets/{REPOSITORY}/preupload/main":
            modes = [self._mode(file["path"]) for file in json.loads(body)["files"]]
            return self._send(200, {"files": modes})
        assert self.path == f"/api/datasets/{REPOSITORY}/commit/main"
        added = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
        hub.contents |= {file["path"]: base64.b64decode(file["content"]) for file in added}
        deleted = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "deletedFile"]
        for file in deleted:
            del hub.contents[file["path"]]
        hub.commits.append([file["path"] for file in added])
        url = f"{hub.url}/datasets/{REPOSITORY}/commit/{'0' * 40}"
        return self._send(200, {"commitUrl": url, "commitOid": "0" * 40})

    def _mode(self, path: str) -> dict[str, Any]:
        content = self.hub.contents.get(path)
        oid = content and hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 - git's
        return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": oid}

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        with suppress(ConnectionError):
            content = json.dumps(value).encode()
            self.send_response(status)
            for name, text in ({"Content-Length": str(len(content))} | (headers or {})).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

    def log_request(self, *_: object) -> None:
        """Says nothing of what goes well."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)  # of processes
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    hub.open()
    yield hub
    hub.close()


def pushing(folder: Path, seconds: float = 0.05) -> FeedbackStore:
    return FeedbackStore(folder, REPOSITORY, seconds / 60)


def test_records_reach_a_private_repository_and_unchanged_files_are_not_sent_again(hub: Hub, tmp_path: Path) -> None:
    with pushing(tmp_path) as store:
        first, second = judged("a", "1"), judged("b", "2")
        store.add(first)
        wait_until(lambda: hub.records() == {first.id})
        store.add(second)
        wait_until(lambda: hub.records() == {first.id, second.id})
        commits = len(hub.commits)
        time.sleep(0.5)
        assert len(hub.commits) == commits
    assert hub.private is True
    assert hub.tokens == {"Bearer hf_of_the_test"}
    (file,) = files(tmp_path)
    assert hub.contents == {file.name: file.read_bytes()}
    asked_before = len(hub.requests)
    pushing(tmp_path).close()
    assert len(hub.requests) == asked_before


def test_a_start_pushes_what_an_earlier_process_left_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    left = [judged("a", str(number)) for number in range(10)]
    for record in left:
        keep(tmp_path, record)
    with pushing(tmp_path, 3600) as store:
        wait_until(lambda: len(hub.records()) == 10)
        store.add(judged("b", "new"))
    with files(tmp_path)[0].open("ab") as file:
        file.write(b'{"torn')
    pushing(tmp_path).close()
    asked_before = len(hub.requests)
    pushing(tmp_path).close()
    assert len(hub.requests) == asked_before
    assert sorted(map(len, hub.commits)) == [1, 2, 8]
    assert all(content.endswith(b"\n") for content in hub.contents.values())
    assert len(hub.records()) == 11


def test_what_is_deleted_leaves_the_hub_with_the_next_push(hub: Hub, tmp_path: Path) -> None:
    with pushing(tmp_path) as store:
        store.add(judged("a", "1", visit=VISIT))
        wait_until(hub.records)
        kept = judged("a", "1", visit=OTHER)
        store.forget(VISIT.visitor)
        wait_until(lambda: not hub.contents)
        store.add(kept)  # of the same length: the file is as long as it was
        wait_until(lambda: hub.records() == {kept.id})


def test_another_repository_gets_everything(hub: Hub, tmp_path: Path) -> None:
    keep(tmp_path, judged("a", "1"))
    (tmp_path / "pushed.json").write_text(
        json.dumps({"repository": "owner/old", "files": {file.name: file.stat().st_size for file in files(tmp_path)}})
    )
    pushing(tmp_path).close()
    assert len(hub.records()) == 1
    (tmp_path / "pushed.json").write_text("no JSON")
    pushing(tmp_path).close()
    assert len(hub.commits) == 1  # the Hub said that it had the content


@pytest.mark.parametrize("away", ["refused", 500, 401])
def test_a_hub_that_is_away_stops_nobody_and_gets_everything_when_it_is_back(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture, away: str | int
) -> None:
    if isinstance(away, int):
        hub.status = away
    else:
        hub.close()
    records = [judged("xylophone", f"xylophone {number}") for number in range(5)]
    with pushing(tmp_path) as store:
        for record in records:
            store.add(record)
            time.sleep(0.2)
        assert len(read_records(tmp_path).records) == 5
        assert len(hub.requests) < 8  # of the 20 that there would be without longer and longer pauses
        hub.status = 0
        if away == "refused":
            hub.open()
        wait_until(lambda: len(hub.records()) == 5)
        wait_until(lambda: len(caplog.messages) == 2)
    gone, back = caplog.messages
    assert gone.startswith(f"feedback does not reach {REPOSITORY} (")
    assert {"refused": "refused", 500: "HTTP 500)", 401: "HTTP 401: does HF_TOKEN allow"}[away] in gone
    assert back == f"feedback reaches {REPOSITORY} again"
    assert "xylophone" not in caplog.text


def test_the_pause_between_attempts_is_bounded(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.feedback.push.LONGEST_PAUSE", 0.1)
    hub.status = 500
    keep(tmp_path, judged("a", "1"))
    with pushing(tmp_path, 0.01):
        wait_until(lambda: len(hub.requests) > 15, 10)


def test_a_hub_that_takes_a_request_and_never_answers_is_asked_again(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serve.feedback.push.HUB_SECONDS", 0.3)
    hub.free.clear()
    keep(tmp_path, judged("a", "1"))
    with pushing(tmp_path):
        wait_until(lambda: caplog.messages)
        assert "timed out" in caplog.text
        hub.free.set()
        wait_until(hub.records)


def test_two_processes_do_not_push_at_once(hub: Hub, tmp_path: Path) -> None:
    keep(tmp_path, judged("a", "1"))
    with (tmp_path / "pushing.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        store = pushing(tmp_path)
        time.sleep(0.3)
        assert not hub.requests
    wait_until(hub.records)
    store.close()


def test_a_public_repository_gets_nothing(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.private = False
    keep(tmp_path, judged("a", "1"))
    pushing(tmp_path).close()
    assert not hub.commits
    assert "it is public; make it private on the Hub" in caplog.text


def test_the_last_attempt_is_bounded(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.free.clear()
    store = pushing(tmp_path)
    store.add(judged("a", "1"))
    started = time.monotonic()
    store.close(patience=0.5)
    assert time.monotonic() - started < 2
    (said,) = caplog.messages
    assert said == f"not all feedback is on {REPOSITORY} (no answer yet): {tmp_path} keeps it for the next start"
    hub.free.set()
    pushing(tmp_path).close()
    assert len(hub.records()) == 1


@pytest.mark.parametrize("hangs", [False, True], ids=["there", "hangs"])
def test_sigterm_makes_a_last_attempt(hub: Hub, tmp_path: Path, hangs: bool) -> None:
    line = [sys.executable, "-c", SERVE, str(tmp_path), REPOSITORY]
    process = subprocess.Popen(
        line, cwd=ROOT, text=True, env=os.environ | {"HF_DEBUG": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == "added\n"
    assert not hub.records()
    if hangs:
        hub.free.clear()
    process.terminate()
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 0
    assert len(hub.records()) == (0 if hangs else 1)
    assert len(read_records(tmp_path).records) == 1
    assert ("keeps it for the next start" in errors) == hangs
    assert "xylophone" not in errors
    assert "curl" not in errors  # which HF_DEBUG would show with what is sent


@pytest.mark.parametrize("name", ["chat-feedback", "a/b/c", "", "owner/über", "owner/a--b"])
def test_a_repository_that_cannot_be_is_said_at_the_start(tmp_path: Path, name: str) -> None:
    if name:
        with pytest.raises(UserError, match="the repository for feedback must be named owner/name"):
            FeedbackStore(tmp_path, name)
    else:
        FeedbackStore(tmp_path, name).close()  # unset: nothing is pushed


# Exporting

RECORDS = [
    judged("capital of France?", "Paris", timings=Timings(0.2, 1.0, 10, 30.0)),
    judged("capital of France?", "Paris", reasons=("accurate",)),  # a duplicate
    judged("capital of Italy?", "Rome"),
    judged("capital of Italy?", "Rome", "bad", reasons=("too_long", "accurate")),  # contradicts
    judged("2 + 2?", "5", "bad", reasons=("wrong_facts",)),
    judged("no verdict", "x", None),
    compared("3 + 3?", "6", "7", "left"),
    compared("3 + 3?", "6", "7", "left"),
    compared("4 + 4?", "9", "8", "right"),
    compared("5 + 5?", "10", "ten", "tie"),
    compared("6 + 6?", "13", "14", "both_bad"),
    compared("7 + 7?", "14", "fourteen", "left"),
    compared("7 + 7?", "14", "fourteen", "right"),  # as pairs, these contradict
    compared("8 + 8?", "16", "16", "left"),  # no pair
]


def test_the_pipeline_takes_what_is_exported(tmp_path: Path) -> None:
    keep(tmp_path / "feedback", *RECORDS)
    out, pairs = tmp_path / "data/raw/feedback.jsonl", tmp_path / "pairs.jsonl"
    done = command("export", "--folder", tmp_path / "feedback", "--out", out, "--preferences", pairs)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{out}: 6 rows (left out: 1 contradicted, 2 duplicates)" in done.stdout
    assert f"{pairs}: 2 rows (left out: 2 contradicted, 1 duplicates)" in done.stdout

    settings = DataSettings("local", "files", ["data/raw/**/*"], validation=1, test=1)
    report = prepare(settings, tmp_path, tmp_path)
    assert report["files"] == [
        {"file": "data/raw/feedback.jsonl", "format": "messages", "rows": 6, "usable": 6, "dropped": {}}
    ]
    rows = [row for path in (tmp_path / "data/prepared").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows} == {
        ("capital of France?", "Paris"),
        ("3 + 3?", "6"),
        ("4 + 4?", "8"),
        ("7 + 7?", "14"),
        ("7 + 7?", "fourteen"),
        ("8 + 8?", "16"),
    }
    assert [json.loads(line) for line in pairs.read_text().splitlines()] == [
        {"messages": asked("3 + 3?"), "chosen": "6", "rejected": "7"},
        {"messages": asked("4 + 4?"), "chosen": "8", "rejected": "9"},
    ]


def prepared(root: Path, preferences: str) -> tuple[set[tuple[str, str]], dict[str, Any]]:
    """What the pipeline learns of the records below `root`, beside rows of others, and its report."""
    rows = [{"question": f"other {n}?", "answer": f"{n}"} for n in range(20)]
    (root / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataSettings(
        "local",
        "files",
        ["feedback/*", "other.jsonl"],
        validation=1,
        test=1,
        preferences=preferences,
        leak_threshold=None,
    )
    report = prepare(settings, root, root)
    found = [row for path in (root / "data/prepared").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    pairs = {(row["messages"][-2]["content"], row["messages"][-1]["content"]) for row in found}
    return {pair for pair in pairs if not pair[0].startswith("other")}, report


def test_the_pipeline_reads_records_as_they_are_kept(tmp_path: Path) -> None:
    taken_back = judged("was liked", "no more")
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a bad answer before"}]
    later = judged("", "a good one", messages=[*earlier, *asked("and now?")])
    keep(tmp_path / "feedback", *RECORDS, taken_back, later)
    keep(tmp_path / "feedback", replace(taken_back, verdict=None, time=now()))  # in another file
    assert len(files(tmp_path / "feedback")) == 2
    learnt, report = prepared(tmp_path, "answers")
    assert learnt == {("capital of France?", "Paris"), ("3 + 3?", "6"), ("4 + 4?", "8"), ("and now?", "a good one")}
    dropped: Counter[str] = Counter()
    for file in report["files"]:
        dropped += Counter(file["dropped"])
    assert dropped == {
        "feedback that another contradicts": 4,
        "feedback that a later record replaces": 1,
        "feedback without a verdict": 4,  # none, taken back, a tie, the same twice
        "judged as a bad answer": 2,
    }
    rejected = [json.loads(line) for line in (tmp_path / "data/rejected.jsonl").read_text().splitlines()]
    assert {row["row"]["messages"][-1]["content"] for row in rejected if "contradicts" in row["reason"]} == {
        "capital of Italy?",
        "7 + 7?",
    }


def test_records_as_they_are_kept_are_preferences_where_they_stand_apart(tmp_path: Path) -> None:
    keep(tmp_path / "feedback", *RECORDS)
    learnt, _ = prepared(tmp_path, "apart")
    assert learnt == set()
    apart = [json.loads(line) for line in (tmp_path / "data/prepared/preferences.jsonl").read_text().splitlines()]
    assert {
        (row["messages"][-1]["content"], row["completion"][0]["content"], row["label"])
        for row in apart
        if "label" in row
    } == {
        ("capital of France?", "Paris", True),
        ("2 + 2?", "5", False),
    }
    assert {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in apart if "chosen" in row} == {
        ("6", "7"),
        ("8", "9"),
    }


def test_a_record_among_other_rows_or_of_another_version_is_refused_by_its_line(tmp_path: Path) -> None:
    keep(tmp_path / "feedback", judged("a", "1"))
    (path,) = files(tmp_path / "feedback")
    (record,) = map(json.loads, path.read_text().splitlines())
    path.write_text(json.dumps(record | {"schema": 3}) + "\n")
    rows = [{"question": f"other {n}?", "answer": f"{n}"} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, record]))
    settings = DataSettings("local", "files", ["feedback/*", "a.jsonl"], max_dropped=1, validation=1, test=1)
    report = prepare(settings, tmp_path, tmp_path)
    assert [file["dropped"] for file in report["files"]] == [
        {"feedback among other rows, where nobody knows which record is the latest": 1},
        {"feedback of another version, or damaged": 1},
    ]


def test_a_changed_verdict_takes_a_row_out_and_an_answer_taken_back_is_none(tmp_path: Path) -> None:
    good, taken_back = judged("a", "1"), judged("b", "2")
    changes = [replace(good, verdict="bad", time=now()), replace(taken_back, verdict=None, time=now())]
    keep(tmp_path, good, taken_back, judged("c", "3"), *changes)
    assert command("export", "--folder", tmp_path, "--out", tmp_path / "rows.jsonl").returncode == 0
    (row,) = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert row == {"messages": [*asked("c"), {"role": "assistant", "content": "3"}]}


def test_the_summary_has_a_line_for_each_model(tmp_path: Path) -> None:
    keep(tmp_path, *RECORDS)
    shown = command("summary", "--folder", tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    header, large, small, _, counts = shown.stdout.splitlines()
    assert re.split(r"  +", header) == list(COLUMNS)
    assert re.split(r"  +", large) == ["large Q8_0", "0", "0", "0", "-", "2", "4", "1", "1", "-", "-", "-"]
    label, *figures, reasons = re.split(r"  +", small)
    assert label == "small 01234567 Q4_K_M"
    assert figures == ["5", "3", "2", "60%", "4", "2", "1", "1", "0.45 s", "21.7"]
    assert reasons == "Accurate 2, Too long 1, Wrong facts 1"
    assert counts == "14 records in 1 file"


@pytest.mark.parametrize(
    ("records", "out", "more", "error"),
    [
        ([], "rows.jsonl", [], "no feedback-*.jsonl in {folder}: name the folder that the server keeps feedback in"),
        (
            [judged("a", "1", "bad")],
            "rows.jsonl",
            [],
            "no answer was found good (left out: 0 contradicted, 0 duplicates)",
        ),
        (
            [judged("a", "1")],
            "file/rows.jsonl",
            [],
            "cannot write {folder}/file/rows.jsonl: File exists; make room",
        ),
        (
            [judged("a", "1")],
            "rows",
            ["--preferences", "{folder}/rows"],
            "--out and --preferences are both {folder}/rows",
        ),
    ],
    ids=["nothing kept", "nothing good", "no folder", "one file twice"],
)
def test_bad_input_ends_in_one_line(
    tmp_path: Path, records: list[Record], out: str, more: list[str], error: str
) -> None:
    keep(tmp_path, *records)
    (tmp_path / "file").write_text("")
    options = [text.format(folder=tmp_path) for text in more]
    done = command("export", "--folder", tmp_path, "--out", tmp_path / out, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {error.format(folder=tmp_path)}")
    assert not list(tmp_path.glob("*rows*"))
