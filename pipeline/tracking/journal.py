"""What MLflow is to be told, on disk first: neither a kill nor a server that is away loses an entry.

mlflow.jsonl        one JSON object a line, in the order of recording; it only grows
mlflow_sent         how many bytes of it MLflow has taken
mlflow_run          the id of the run that took them
mlflow_artifacts/   copies of the files to be kept beside the run
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import MachineError
from common.files import atomic_path, unwritable, write_text

JOURNAL = "mlflow.jsonl"
COPIED = 2**20  # bytes of a file up to which its copy is kept, since DVC may remove the workspace with the original

Value = Mapping[str, str] | Mapping[str, float] | str  # of an artifact, its name; else what is recorded, by name


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    kind: str  # run, status, metrics, params, tags, split or artifact
    value: Any  # of Value; the kind says which
    time: int  # milliseconds since 1970, of the recording and not of the delivery
    step: int | None = None  # of metrics; None for figures of the whole run


class Journal:
    """The entries of one run in `folder`; several processes may append, and one at a time delivers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.path = self.folder / JOURNAL

    def append(self, kind: str, value: Value, step: int | None = None) -> None:
        """Write an entry; what a killed process left of a line is closed off first, and then no entry.

        Raises:
            MachineError: the disk is full or the folder cannot be written.
        """
        line = (
            json.dumps(asdict(Entry(kind, value, time.time_ns() // 10**6, step)), ensure_ascii=False).encode() + b"\n"
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read(1) == b"\n" else b"\n" + line
                file.write(line)
        except OSError as error:
            why = unwritable(error) or error.strerror
            way_out = "make room or grant access there, or take tracking=none"
            raise MachineError(f"cannot write {self.path}: {why}; {way_out}") from error

    def entries(self, start: int = 0) -> Iterator[tuple[Entry, int]]:
        """Yield each entry from byte `start` on, with the byte at which it ends."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            end = file.seek(start)
            for line in file:
                end += len(line)
                try:
                    entry = Entry(**json.loads(line))
                except (ValueError, TypeError):  # cut off by a kill
                    continue
                yield entry, end

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def sent(self) -> int:
        """Bytes that MLflow has taken."""
        text = _read(self.folder / "mlflow_sent")
        sent = int(text) if text.isdecimal() else 0
        return sent if sent <= self.size else 0  # the journal was removed, and this file was not

    @sent.setter
    def sent(self, count: int) -> None:
        write_text(self.folder / "mlflow_sent", str(count))

    @property
    def run_id(self) -> str | None:
        """The run that MLflow keeps these entries in."""
        return _read(self.folder / "mlflow_run") or None

    @run_id.setter
    def run_id(self, run_id: str) -> None:
        write_text(self.folder / "mlflow_run", run_id)

    def keep(self, path: Path) -> str:
        """Copy a small file here as it is now, and return the name for `kept`; a large one stays where it is."""
        if path.stat().st_size > COPIED:
            return str(path.resolve())
        with atomic_path(self.kept(path.name)) as temporary:
            shutil.copyfile(path, temporary)
        return path.name

    def put(self, name: str, text: str) -> str:
        """Write a file to be kept, and return the name for `kept`."""
        write_text(self.kept(name), text)
        return name

    def kept(self, name: str) -> Path:
        """Return where a file is that `keep` named so."""
        return self.folder / "mlflow_artifacts" / name

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Wait until no other process delivers from here, and keep others from it."""
        with self.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
