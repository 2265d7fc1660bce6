"""What users say of answers: kept so that nothing is lost, pushed to the Hub, turned into rows to train on.

    with FeedbackStore(Path("feedback"), repository="owner/name", every_minutes=5) as store:
        record = AnswerRecord(messages=messages, sampling=asdict(sampling), answer=answer, verdict="good")
        store.add(record)
        store.add(replace(record, verdict="bad", time=now()))  # the same id: the later one counts

    python -m serve.feedback summary --folder feedback
    python -m serve.feedback export --folder feedback --out data/raw/feedback.jsonl --preferences pairs.jsonl

A folder of feedback holds files that only grow, each written by one process:

    feedback-<time>-<pid>-<random>.jsonl   one record a line; only the last line can be torn, by a kill
    pushed.json                            how many bytes of each file the Hub has
    pushing.lock                           held while a process pushes
"""

import argparse
import fcntl
import json
import logging
import os
import re
import sys
import threading
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

from serve.errors import RequestError, UserError
from serve.limits import Message

SCHEMA = 1  # raised when a reader of the old records would misread the new ones
COMMENT_CHARS = 2000
FILE_BYTES = 4 << 20  # then another file: a push sends the whole of each file that has grown
FILES_PER_COMMIT = 8
HUB_SECONDS = 60.0  # without a sign of life from the Hub; huggingface_hub would wait for ever
LONGEST_PAUSE = 3600.0  # seconds between two attempts, however long the Hub is away
THREAD = "feedback push"
PATTERN, PUSHED, LOCK = "feedback-*.jsonl", "pushed.json", "pushing.lock"
COLUMNS = (
    *("model", "judged", "good", "bad", "share good"),
    *("won", "lost", "tied", "both bad"),
    *("first token", "tokens/s", "most frequent reasons"),
)

Verdict = Literal["good", "bad"]
Vote = Literal["left", "right", "tie", "both_bad"]

logger = logging.getLogger(__name__)  # never given a word of a record


class Reason(NamedTuple):
    """What can be ticked: the key is kept, the label is shown, with the verdict that it goes with (None: either)."""

    key: str
    label: str
    verdict: Verdict | None


REASONS = (
    Reason("accurate", "Accurate", "good"),
    Reason("followed", "Followed the instruction", "good"),
    Reason("well_written", "Well written", "good"),
    Reason("wrong_facts", "Wrong facts", "bad"),
    Reason("ignored", "Ignored the instruction", "bad"),
    Reason("unsafe", "Unsafe or unfair", "bad"),
    Reason("too_long", "Too long", "bad"),
    Reason("too_short", "Too short", "bad"),
    Reason("too_slow", "Too slow", "bad"),
    Reason("other", "Other", None),
)


def new_id() -> str:
    """An id for a record; records of one id are versions of one judgement."""
    return uuid.uuid4().hex


def now() -> str:
    """The time in UTC; as text it sorts as time does."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class ModelVersion:
    """Which model answered."""

    name: str
    revision: str | None = None
    quantization: str | None = None

    @property
    def label(self) -> str:
        """One text for tables."""
        return " ".join(part for part in (self.name, self.revision and self.revision[:8], self.quantization) if part)


@dataclass(frozen=True)
class Timings:
    """How long an answer took, in seconds."""

    first_token: float
    total: float
    tokens: int
    tokens_per_second: float


@dataclass(frozen=True)
class Answer:
    """An answer as its reader saw it."""

    text: str
    model: ModelVersion
    timings: Timings | None = None


@dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """What is thought of one answer; without a verdict it takes an earlier one back, or is a mere comment."""

    kind: ClassVar[str] = "answer"
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)
    messages: Sequence[Message]  # up to and with the question
    sampling: Mapping[str, Any]  # not a Sampling: a later version's has other fields, and other defaults
    answer: Answer
    verdict: Verdict | None = None
    reasons: tuple[str, ...] = ()  # keys of REASONS
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord:
    """Which of two answers to one question is better."""

    kind: ClassVar[str] = "comparison"
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)
    messages: Sequence[Message]
    sampling: Mapping[str, Any]
    left: Answer
    right: Answer
    blind: bool  # whether the models' names were hidden until the vote
    vote: Vote | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""


Record = AnswerRecord | ComparisonRecord


class FeedbackStore:
    """A folder of records that this process adds to, and, with a repository, brings to the Hub."""

    def __init__(self, folder: Path, repository: str | None = None, every_minutes: float = 5) -> None:
        """Make the folder, and start to push what earlier processes left; the network is not needed for it.

        `repository` is a dataset, owner/name, which is made private if it is not there and refused if it is public.
        The token is huggingface_hub's: HF_TOKEN, or the one that `hf auth login` left. Raises UserError.
        """
        self._folder = folder.absolute()
        self._lock = threading.Lock()
        self._file: int | None = None  # made for the first record: a server that nobody judges leaves none
        try:
            _make_folder(self._folder)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder} for feedback: {error.strerror}") from None
        if not os.access(self._folder, os.W_OK):
            raise UserError(f"the folder {folder} for feedback cannot be written: grant access to it, or take another")
        self._pusher = _Pusher(self._folder, repository, every_minutes, self._lock) if repository else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, record: Record) -> None:
        """Keep a record: it is on the disk when this returns. From any thread.

        Raises RequestError for a record out of bounds, and when the disk does not take it; then nothing of it is kept.
        """
        _check(record)
        line = _json({"schema": SCHEMA, "kind": record.kind, **asdict(record)}) + b"\n"
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            logger.warning("feedback was not kept in %s: %s", self._folder, error.strerror)
            raise RequestError(f"Your feedback could not be kept ({error.strerror}). Please try again later.") from None

    def close(self, patience: float = 5) -> None:
        """Try a last time to push, for `patience` seconds at most. A record that comes after is kept, too."""
        with self._lock:
            self._close_file()
        if self._pusher:
            self._pusher.close(patience)

    def _append(self, line: bytes) -> None:
        """The whole line or nothing of it."""
        file = self._open_file()
        size = os.fstat(file).st_size
        try:
            _write(file, line)
            os.fsync(file)
        except BaseException:  # a full disk, but a signal's exception too
            try:
                os.ftruncate(file, size)
            except OSError:  # a torn line must stay the last of its file
                self._close_file()
            raise

    def _open_file(self) -> int:
        """The file to add to: another where this one is long enough, or somebody has removed it."""
        if self._file is not None:
            status = os.fstat(self._file)
            if status.st_size >= FILE_BYTES or not status.st_nlink:
                self._close_file()
        if self._file is None:
            self._file = _new_file(self._folder)
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Pusher:
    """A thread that brings the folder's files to a private dataset, again and again until `close`.

    huggingface_hub's CommitScheduler would be less code, but it asks the Hub in its constructor, so that a server does
    not start without it; remembers only in memory what it pushed; looks at no repository's privacy; and has no bound
    on its last attempt.
    """

    def __init__(self, folder: Path, repository: str, every_minutes: float, lock: threading.Lock) -> None:
        """`lock` is held by whoever writes a record. Raises UserError for a name that no repository can have."""
        _check_repository(repository)
        if not every_minutes > 0:
            raise UserError(f"feedback cannot be pushed every {every_minutes:g} minutes: it must be more than 0")
        self._folder, self._repository, self._lock = folder, repository, lock
        self._pause = 60 * every_minutes
        self._trouble = ""  # why the Hub does not have everything
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._thread.start()

    def close(self, patience: float) -> None:
        self._closing.set()
        self._thread.join(patience)
        trouble = "no answer yet" if self._thread.is_alive() else self._trouble
        if trouble:
            kept = f"{self._folder} keeps it for the next start"
            logger.warning("not all feedback is on %s (%s): %s", self._repository, trouble, kept)

    def _work(self) -> None:
        _prepare_hub_client()
        failures, last = 0, False
        while not last:
            last = self._closing.is_set()
            trouble = self._attempt()
            failures = failures + 1 if trouble else 0
            if not self._closing.is_set():
                self._tell(trouble)
            self._trouble = trouble
            self._closing.wait(min(self._pause * 2 ** min(failures, 20), max(self._pause, LONGEST_PAUSE)))

    def _attempt(self) -> str:
        """Push; why it failed, or nothing."""
        try:
            with _alone(self._folder / LOCK):
                self._push()
        except Exception as error:  # whatever it is, the thread must be there for the next attempt
            return _brief(error)
        return ""

    def _tell(self, trouble: str) -> None:
        """Say once that the Hub is away, and once that it is back."""
        if trouble and not self._trouble:
            kept = f"{self._folder} keeps it, and it is tried again"
            logger.warning("feedback does not reach %s (%s): %s", self._repository, trouble, kept)
        elif self._trouble and not trouble:
            logger.warning("feedback reaches %s again", self._repository)

    def _push(self) -> None:
        """Commit the files that have changed since they were last pushed."""
        pushed = self._pushed()
        with self._lock:  # so that no line is half written, or taken back after it was seen
            sizes = {path.name: path.stat().st_size for path in _files(self._folder)}
        changed = [name for name, size in sizes.items() if size and size != pushed.get(name)]
        if changed:
            self._require_private()
        for start in range(0, len(changed), FILES_PER_COMMIT):
            some = {name: sizes[name] for name in changed[start : start + FILES_PER_COMMIT]}
            self._commit(some)
            pushed |= some
            _replace(self._folder / PUSHED, _json({"repository": self._repository, "files": pushed}))

    def _pushed(self) -> dict[str, int]:
        """How many bytes of which file the repository has. Without that memory all is sent again, which is harmless."""
        try:
            state = json.loads((self._folder / PUSHED).read_bytes())
            return dict(state["files"]) if state["repository"] == self._repository else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _require_private(self) -> None:
        """Make the repository if it is not there. Raises UserError for one that everybody can read."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        api = HfApi()
        try:
            found = api.dataset_info(self._repository)
        except RepositoryNotFoundError:
            api.create_repo(self._repository, repo_type="dataset", private=True, exist_ok=True)
            found = api.dataset_info(self._repository)
        if not found.private:
            raise UserError("it is public; make it private on the Hub, or name another")

    def _commit(self, sizes: dict[str, int]) -> None:
        """Send the whole lines within each file's first `size` bytes."""
        from huggingface_hub import CommitOperationAdd, HfApi

        operations = []
        for name, size in sizes.items():
            with (self._folder / name).open("rb") as file:
                content = file.read(size)
            operations.append(CommitOperationAdd(name, content[: content.rfind(b"\n") + 1]))
        HfApi().create_commit(self._repository, operations, commit_message="Feedback", repo_type="dataset")


@dataclass(frozen=True)
class Reading:
    """The records of a folder: of each id the latest, in the order of time."""

    records: list[Record]
    files: int
    skipped: Counter[str]  # lines that are torn, damaged or of an unknown schema

    @property
    def text(self) -> str:
        """One line that says how much was read and what was not."""
        skipped = "".join(f"; {count} {why} skipped" for why, count in sorted(self.skipped.items()))
        return f"{len(self.records)} records in {self.files} files{skipped}"


def read_records(folder: Path) -> Reading:
    """Read a folder, whoever writes to it meanwhile. Raises UserError where there is nothing to read."""
    paths = _files(folder)
    if not paths:
        raise UserError(f"no {PATTERN} in {folder}: name the folder that the server keeps feedback in")
    records: list[Record] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        for line in lines:
            try:
                record = _parse(json.loads(line))
                _check_judgement(record)
                records.append(record)
            except _UnknownSchema:
                skipped["of an unknown schema"] += 1
            except Exception:  # whatever is wrong with a line, the others are read
                skipped["damaged" if line.endswith(b"\n") else "torn"] += 1
    # Sorting keeps the order of files and lines where times are equal.
    latest = {record.id: record for record in sorted(records, key=lambda record: record.time)}
    return Reading(list(latest.values()), len(paths), skipped)


def training_rows(records: Iterable[Record]) -> tuple[list[bytes], Counter[str]]:
    """The conversations whose answer was found good or won, a JSON line each; and what was left out how often."""
    judged: dict[bytes, list[Verdict]] = defaultdict(list)
    for record in records:
        for answer, verdict in _verdicts(record):
            turn = {"role": "assistant", "content": answer.text}
            judged[_json({"messages": [*record.messages, turn]})].append(verdict)
    good = {row: verdicts for row, verdicts in judged.items() if "good" in verdicts}
    rows = [row for row, verdicts in good.items() if "bad" not in verdicts]
    duplicates = sum(len(good[row]) - 1 for row in rows)
    return rows, Counter({"contradicted": len(good) - len(rows), "duplicates": duplicates})


def preference_rows(records: Iterable[Record]) -> tuple[list[bytes], Counter[str]]:
    """The answer that won and the one that lost, of each vote, a JSON line each; and what was left out how often."""
    votes: Counter[tuple[bytes, str, str]] = Counter()
    for record in records:
        if isinstance(record, ComparisonRecord) and record.vote in ("left", "right"):
            chosen, rejected = _won_and_lost(record)
            if chosen.text != rejected.text:
                votes[_json(list(record.messages)), chosen.text, rejected.text] += 1
    kept = [vote for vote in votes if (vote[0], vote[2], vote[1]) not in votes]
    rows = [
        _json({"messages": json.loads(messages), "chosen": chosen, "rejected": rejected})
        for messages, chosen, rejected in kept
    ]
    duplicates = sum(votes[vote] - 1 for vote in kept)
    return rows, Counter({"contradicted": len(votes) - len(kept), "duplicates": duplicates})


def summary(records: Iterable[Record]) -> str:
    """A table with a line for each model."""
    tallies: dict[ModelVersion, _Tally] = defaultdict(_Tally)
    for record in records:
        if isinstance(record, AnswerRecord):
            tallies[record.answer.model].add(record.answer, record.verdict or "", record.reasons)
        else:  # whose reasons may be about either answer
            for answer, other, place in ((record.left, "right", "left"), (record.right, "left", "right")):
                result = {place: "won", other: "lost"}.get(record.vote or "", record.vote or "")
                tallies[answer.model].add(answer, result, ())
    return _table([COLUMNS, *sorted(tally.row(model.label) for model, tally in tallies.items())])


@dataclass
class _Tally:
    """What was said of one model."""

    results: Counter[str] = field(default_factory=Counter)  # verdicts and votes
    reasons: Counter[str] = field(default_factory=Counter)
    timings: list[Timings] = field(default_factory=list)

    def add(self, answer: Answer, result: str, reasons: Sequence[str]) -> None:
        self.results[result] += 1
        self.reasons.update(reasons)
        if answer.timings:
            self.timings.append(answer.timings)

    def row(self, label: str) -> list[str]:
        good, bad = self.results["good"], self.results["bad"]
        votes = [str(self.results[result]) for result in ("won", "lost", "tie", "both_bad")]
        labels = {reason.key: reason.label for reason in REASONS}
        return [
            label,
            *(str(good + bad), str(good), str(bad)),
            f"{good / (good + bad):.0%}" if good + bad else "-",
            *votes,
            f"{fmean(timing.first_token for timing in self.timings):.2f} s" if self.timings else "-",
            f"{fmean(timing.tokens_per_second for timing in self.timings):.1f}" if self.timings else "-",
            ", ".join(f"{labels.get(key, key)} {count}" for key, count in self.reasons.most_common(3)) or "-",
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code is 1, after one line, for what is wrong outside of it."""
    parser = argparse.ArgumentParser(prog="python -m serve.feedback", description="What users said of answers.")
    commands = parser.add_subparsers(dest="command", required=True)
    summary_command = commands.add_parser("summary", help="print a line for each model")
    export_command = commands.add_parser("export", help="the same, and write good answers as rows for data=local")
    for command in (summary_command, export_command):
        command.add_argument("--folder", type=Path, required=True, help="where the server keeps feedback")
    export_command.add_argument("--out", type=Path, required=True, help="JSONL, such as data/raw/feedback.jsonl")
    export_command.add_argument(
        "--preferences", type=Path, help="JSONL of answers that won and lost; not in data/raw: they are no chats"
    )
    options = parser.parse_args(arguments)
    try:
        reading = read_records(options.folder)
        print(f"{summary(reading.records)}\n\n{reading.text}")
        if options.command == "export":
            export(reading.records, options.out, options.preferences)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def export(records: Sequence[Record], out: Path, preferences: Path | None = None) -> None:
    """Write the rows, and say how many. Raises UserError where there are none to train on, or the disk refuses."""
    if preferences and preferences.resolve() == out.resolve():
        raise UserError(f"--out and --preferences are both {out}: name two files")
    rows, left_out = training_rows(records)
    if not rows:  # an empty file would only fail later, in the pipeline
        raise UserError(f"no answer was found good ({_counts(left_out)}): {out} is not written")
    _write_rows(out, rows, left_out)
    if preferences:
        _write_rows(preferences, *preference_rows(records))


def _write_rows(path: Path, rows: list[bytes], left_out: Counter[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, b"".join(row + b"\n" for row in rows))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room or grant access there") from None
    print(f"{path}: {len(rows)} rows ({_counts(left_out)})")


def _counts(left_out: Counter[str]) -> str:
    return "left out: " + ", ".join(f"{count} {why}" for why, count in left_out.items())


def _check(record: Record) -> None:
    """Raise RequestError for what no page offers: through an API anything may arrive."""
    _check_judgement(record)
    keys = [reason.key for reason in REASONS]
    ticked = record.reasons
    if not isinstance(ticked, tuple | list) or len(ticked) > len(keys) or any(key not in keys for key in ticked):
        raise RequestError(f"Reasons are some of {', '.join(keys)}.")
    if not isinstance(record.comment, str) or len(record.comment) > COMMENT_CHARS:
        raise RequestError(f"A comment is a text of at most {COMMENT_CHARS} characters.")
    if not isinstance(record.id, str) or not re.fullmatch("[0-9a-f]{32}", record.id):
        raise RequestError("A record's id is 32 hexadecimal digits.")


def _check_judgement(record: Record) -> None:
    given: str | None
    if isinstance(record, AnswerRecord):
        name, given, allowed = "verdict", record.verdict, get_args(Verdict)
    else:
        name, given, allowed = "vote", record.vote, get_args(Vote)
    if given is not None and given not in allowed:
        raise RequestError(f"A {name} is {', '.join(allowed)} or none, not {str(given)[:100]!r}.")


class _UnknownSchema(Exception):
    """A record of a later version of this program."""


def _parse(value: Any) -> Record:
    """A record from its JSON; unknown keys are passed over. Raises as converting to a type or a missing key does."""
    if value["schema"] != SCHEMA:
        raise _UnknownSchema
    shared: dict[str, Any] = {
        "id": str(value["id"]),
        "time": str(value["time"]),
        "messages": [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in value["messages"]],
        "sampling": dict(value["sampling"]),
        "reasons": tuple(str(reason) for reason in value["reasons"]),
        "comment": str(value["comment"]),
    }
    if value["kind"] == "answer":
        return AnswerRecord(answer=_answer(value["answer"]), verdict=value["verdict"], **shared)
    if value["kind"] != "comparison":
        raise ValueError
    left, right = _answer(value["left"]), _answer(value["right"])
    return ComparisonRecord(left=left, right=right, blind=bool(value["blind"]), vote=value["vote"], **shared)


def _answer(value: Any) -> Answer:
    model, timings = value["model"], value["timings"]
    revision, quantization = (model[name] and str(model[name]) for name in ("revision", "quantization"))
    return Answer(
        str(value["text"]), ModelVersion(str(model["name"]), revision, quantization), timings and _timings(timings)
    )


def _timings(value: Any) -> Timings:
    seconds, total, speed = (float(value[name]) for name in ("first_token", "total", "tokens_per_second"))
    return Timings(seconds, total, int(value["tokens"]), speed)


def _verdicts(record: Record) -> Iterator[tuple[Answer, Verdict]]:
    """What a record says of which answer. To lose a vote is not to be bad."""
    if isinstance(record, AnswerRecord):
        if record.verdict:
            yield record.answer, record.verdict
    elif record.vote == "both_bad":
        yield from ((record.left, "bad"), (record.right, "bad"))
    elif record.vote in ("left", "right"):
        yield _won_and_lost(record)[0], "good"


def _won_and_lost(record: ComparisonRecord) -> tuple[Answer, Answer]:
    return (record.left, record.right) if record.vote == "left" else (record.right, record.left)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of one width each, numbers to the right, the first and the last column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _json(value: Any) -> bytes:
    """One line. Half a surrogate pair, which JSON can hold and UTF-8 cannot, stays an escape."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")


def _files(folder: Path) -> list[Path]:
    """The files of records, the oldest first."""
    return sorted(folder.glob(PATTERN))


def _make_folder(folder: Path) -> None:
    """Make a folder that only its owner can read, and put it on the disk with those above it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync(folder.parent)


def _new_file(folder: Path) -> int:
    """A file that no other process has, under a name that is on the disk."""
    path = folder / f"feedback-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        _sync(folder)
    except BaseException:
        os.close(file)
        raise
    return file


def _write(file: int, content: bytes) -> None:
    """All of it: a disk that fills up takes a part and says so only at the next write."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is whole under its name, or as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process pushes: an older copy of a file must not come after a newer one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_repository(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise UserError("the repository for feedback must be named owner/name, of letters, digits, '-', '_' and '.'")


def _prepare_hub_client() -> None:
    """Give huggingface_hub's requests an end, and keep what it says of each of them from the log."""
    import httpx
    from huggingface_hub import get_session, set_client_factory

    def limit(request: httpx.Request) -> None:
        """The client's own timeout is not enough: some calls pass one of None, which goes before it."""
        given = request.extensions.get("timeout", {})
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {phase: given.get(phase) or HUB_SECONDS for phase in phases}

    hooks = get_session().event_hooks  # they heed HF_HUB_OFFLINE
    hooks = hooks | {"request": [*hooks["request"], limit]}
    set_client_factory(lambda: httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=HUB_SECONDS))
    for name in ("hf_api", "utils._http"):  # they speak of each retry, and under HF_DEBUG show what is sent
        logging.getLogger(f"huggingface_hub.{name}").addFilter(lambda record: record.threadName != THREAD)


def _brief(error: Exception) -> str:
    """An error in a few words; not in the Hub's, which might repeat what was sent."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"HTTP {status}" + (": does HF_TOKEN allow to write there?" if status in (401, 403) else "")
    if isinstance(error, UserError | OSError | httpx.HTTPError):
        return " ".join(str(error).split())[:200] or type(error).__name__
    return type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
