"""Takes a visitor's records out of a folder, while servers go on adding to it."""

import fcntl
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve.feedback.files import record_files, replace


def forget(folder: Path, visitor: str, ids: Collection[str] | None = None) -> set[str]:
    """Delete all versions of a visitor's records of some ids, else of all; return the ids that there were.

    Each file is written anew and takes the old one's place, so that it is there with them or without. Called again
    after an interruption, it goes on.

    Raises OSError for what the disk refuses.
    """
    gone: set[str] = set()
    for path in record_files(folder):
        with _locked(path):
            left, left_out = without(path.read_bytes(), visitor, ids)
            if left_out:
                replace(path, left)
                gone |= left_out
    return gone


def without(content: bytes, visitor: str, ids: Collection[str] | None = None) -> tuple[bytes, set[str]]:
    """Return the lines of a file that are no versions of a visitor's records of some ids, or all; and those ids."""
    lines = content.splitlines(keepends=True)
    found = [_id_of(line, visitor) for line in lines]
    gone = {one for one in found if one is not None and (ids is None or one in ids)}
    return b"".join(line for line, one in zip(lines, found, strict=True) if one not in gone), gone


def _id_of(line: bytes, visitor: str) -> str | None:
    """Return a record's id, if it is the visitor's: most lines need no more than a look for the name."""
    if visitor.encode() not in line:
        return None
    try:
        record = json.loads(line)
        return str(record["id"]) if record["visit"]["visitor"] == visitor else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file that is the one of its name: who adds to it, or deletes of it, waits."""
    while True:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return
