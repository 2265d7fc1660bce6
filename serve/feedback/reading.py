"""Reads a folder of records back."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.words import counted
from serve.feedback.files import PATTERN, record_files
from serve.feedback.records import Record, UnknownSchema, check_judgement, parse


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
        return f"{counted(len(self.records), 'record')} in {counted(self.files, 'file')}{skipped}"


def read_records(folder: Path) -> Reading:
    """Read a folder, whoever writes to it meanwhile. Raises UserError where there is nothing to read."""
    paths = record_files(folder)
    if not paths:
        raise UserError(f"no {PATTERN} in {folder}: name the folder that the server keeps feedback in")
    return _read(paths, b"")


def records_of(folder: Path, visitor: str) -> list[Record]:
    """Return a visitor's records, of each id the latest, the newest first."""
    reading = _read(record_files(folder), visitor.encode())
    return [record for record in reversed(reading.records) if record.visit and record.visit.visitor == visitor]


def _read(paths: Sequence[Path], having: bytes) -> Reading:
    """Read the lines that have some bytes."""
    records: list[Record] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        for line in lines:
            if having not in line:
                continue
            try:
                record = parse(json.loads(line))
                check_judgement(record)
                records.append(record)
            except UnknownSchema:
                skipped["of an unknown schema"] += 1
            except Exception:  # whatever is wrong with a line, the others are read
                skipped["damaged" if line.endswith(b"\n") else "torn"] += 1
    # Sorting keeps the order of files and lines where times are equal.
    latest = {record.id: record for record in sorted(records, key=lambda record: record.time)}
    return Reading(list(latest.values()), len(paths), skipped)
