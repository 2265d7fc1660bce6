"""What a worker and its launcher tell one another: why to stop, and why one ended."""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from common.errors import KINDS, Interrupted, UserError
from common.files import write_json
from pipeline.workers.parent import ORPHANED, launcher
from pipeline.workers.ranks import rank

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on
STATUS = "TUNESMITH_STATUS"  # in the environment of a stage: a file for the status that it fails with
ASKED = "asked"  # a file that says why they are asked to stop
POLL = 0.05  # seconds
HANDED_ON = 2.0  # seconds within which the launcher hands on what it is asked, or is gone


class LastWords(TypedDict):
    """What a worker said when it ended."""

    kind: str  # one of common.errors.KINDS, or defect
    text: str
    at: float  # by time.monotonic


def last_words(folder: Path) -> list[LastWords]:
    """Return what workers said when they ended, the earliest first."""
    messages: list[LastWords] = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(messages, key=lambda words: words["at"])


@contextmanager
def reported() -> Iterator[None]:
    """Leave the line of an error to the launcher of this worker, which says it once for all, and end."""
    try:
        yield
    except Exception as error:
        folder = launcher_folder()
        if folder is None:
            raise
        kind = type(error).__name__ if type(error).__name__ in KINDS else "UserError"
        text = str(error)
        if not isinstance(error, UserError):
            kind, text = "defect", traceback.format_exc()
        write_json(folder / f"{rank()}.json", LastWords(kind=kind, text=text, at=time.monotonic()))
        sys.exit(TRY_AGAIN if isinstance(error, Interrupted) else 1)


@contextmanager
def status_left() -> Iterator[None]:
    """Leave the status of a stage that fails in the file that STATUS names: DVC ends with 255 whatever it was."""
    try:
        yield
    except SystemExit as end:
        if end.code and (path := os.environ.get(STATUS)):
            Path(path).write_text(str(end.code if isinstance(end.code, int) else 1), encoding="utf-8")
        raise


def launcher_folder() -> Path | None:
    """Return where the launcher of this process takes its last words; None where there is none, or none any more."""
    started_by = launcher()
    return started_by.folder if started_by is not None and os.getppid() == started_by.pid else None


def asked_by_launcher() -> str:
    """Return why ORPHANED came: what the launcher of this process hands on, or that it is gone.

    Linux says the latter once for each of the launcher's threads, and at first it still is the parent. A scheduler that
    signals all processes may reach this one before the launcher has handed it on.
    """
    for _ in range(round(HANDED_ON / POLL)):
        folder = launcher_folder()
        if folder is None:
            return "the launcher is gone"
        if (folder / ASKED).is_file():
            return (folder / ASKED).read_text(encoding="utf-8")
        time.sleep(POLL)
    return ORPHANED.name
