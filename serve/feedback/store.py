"""The folder that records are kept in: nothing of what was acknowledged is lost, whatever ends the process.

    feedback-<time>-<pid>-<random>.jsonl   one record a line; only the last line can be torn, by a kill
    pushed.json                            which files the Hub has, and how many bytes of each
    pushing.lock                           held while a process pushes

A file is added to by one process, and written anew by whoever deletes of it (forgetting.py); both lock it.
"""

import fcntl
import logging
import os
import threading
import uuid
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from common.errors import UserError
from llama.errors import RequestError
from serve.feedback.files import sync
from serve.feedback.forgetting import forget
from serve.feedback.push import Pusher
from serve.feedback.reading import records_of
from serve.feedback.records import SCHEMA, Record, check, to_json

FILE_BYTES = 4 << 20  # then another file: a push sends the whole of each file that has grown
WAY_OUT = "set SERVE_FEEDBACK to another folder, or to off"

logger = logging.getLogger(__name__)  # never given a word of a record


class FeedbackStore:
    """A folder of records that this process adds to and takes from, and, with a repository, brings to the Hub."""

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
            raise UserError(f"cannot make the folder {folder} for feedback: {error.strerror}; {WAY_OUT}") from None
        if not os.access(self._folder, os.W_OK):
            raise UserError(f"the folder {folder} for feedback cannot be written: grant access to it, or {WAY_OUT}")
        self._pusher = Pusher(self._folder, repository, every_minutes, self._lock) if repository else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, record: Record) -> None:
        """Keep a record: it is on the disk when this returns. From any thread.

        Raises RequestError for a record out of bounds, and when the disk does not take it; then nothing of it is kept.
        """
        check(record)
        line = to_json({"schema": SCHEMA, "kind": record.kind, **asdict(record)}) + b"\n"
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            logger.warning("feedback was not kept in %s: %s", self._folder, error.strerror)
            raise RequestError(f"Your feedback could not be kept ({error.strerror}). Please try again later.") from None

    def of_visitor(self, visitor: str) -> list[Record]:
        """Return a visitor's records, of each id the latest, the newest first."""
        return records_of(self._folder, visitor)

    def forget(self, visitor: str, ids: Collection[str] | None = None) -> set[str]:
        """Delete a visitor's records of some ids, else all; return whose there were.

        Raises RequestError when the disk does not take it; each file is then as it was, or without them.
        """
        try:
            return forget(self._folder, visitor, ids)
        except OSError as error:
            logger.warning("feedback was not deleted in %s: %s", self._folder, error.strerror)
            raise RequestError(f"It could not be deleted ({error.strerror}). Please try again later.") from None

    def close(self, patience: float = 5) -> None:
        """Try a last time to push, for `patience` seconds at most. A record that comes after is kept, too."""
        with self._lock:
            self._close_file()
        if self._pusher:
            self._pusher.close(patience)

    def _append(self, line: bytes) -> None:
        """Write the whole line or nothing of it."""
        file = self._lock_file()
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
        finally:
            if self._file is not None:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _lock_file(self) -> int:
        """Return the file to add to, locked: another where this one is long, or somebody has replaced or removed it."""
        while True:
            if self._file is None:
                self._file = _new_file(self._folder)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            status = os.fstat(self._file)
            if status.st_size < FILE_BYTES and status.st_nlink:
                return self._file
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _make_folder(folder: Path) -> None:
    """Make a folder that only its owner can read, and put it on the disk with those above it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync(folder.parent)


def _new_file(folder: Path) -> int:
    """Return a file that no other process has, under a name that is on the disk."""
    path = folder / f"feedback-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        sync(folder)
    except BaseException:
        os.close(file)
        raise
    return file


def _write(file: int, content: bytes) -> None:
    """Write all of it: a disk that fills up takes a part and says so only at the next write."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(file, rest) :]
