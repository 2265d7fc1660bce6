"""A turn of the loop: what it learns from, which stays as it was when it began, and what came of it.

data/turn/records/feedback-*.jsonl   what visitors had said
data/turn/turn.json                  written last: then the turn is under way, and the same command goes on with it
reports/turn.json                    of the last turn that ended
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

from common.errors import MachineError, UserError
from common.files import atomic_path
from pipeline.core.inputs import INPUTS, link_inputs
from pipeline.core.paths import TURN, TURN_RECORD
from pipeline.core.records import Count, Record
from pipeline.learning.sources import Kept

RECORDS = TURN / "records"
STATE = TURN / "turn.json"

Start = Literal["champion", "earlier", "adapter", "base"]


class Version(Record):
    """A version of the registered model."""

    name: str
    version: str
    sha256: str | None  # of its file


class Turn(Record):
    """A turn that is under way."""

    made_by: ClassVar[str] = "turn"

    schema_version: int = 1
    arguments: list[str]  # settings, as they were given
    began: str
    source: str  # a folder, or a dataset at its commit
    records: str  # digest of the files
    rows: str  # digest of what they become
    pairs: Count
    labels: Count
    start: Start  # what training goes on from
    start_digest: str | None
    before: Version | None  # the champion
    tried: str  # digest of rows and settings

    @classmethod
    def remedy(cls) -> str:
        """Return what to do about a file that is damaged, or another version's."""
        return f"remove {TURN} and {TURN_RECORD}; the next turn begins anew"


class TurnRecord(Turn):
    """A turn that has ended."""

    ended: str
    after: Version | None  # the champion
    promoted: bool
    why: str


@contextmanager
def alone() -> Iterator[None]:
    """Let no other turn begin here meanwhile. Raises UserError where one is under way, or nothing can be written."""
    try:
        TURN.mkdir(parents=True, exist_ok=True)
        lock = (TURN / "lock").open("w")
    except OSError as error:
        raise MachineError(f"cannot write in {TURN}: {error.strerror}; make room or grant access there") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("another process takes a turn here; wait for it") from None
        yield


def freeze(kept: Kept) -> None:
    """Copy records as they are now, whoever adds to them meanwhile: what comes later is the next turn's.

    Raises:
        UserError: a file cannot be read, or the disk is full.
    """
    with atomic_path(RECORDS) as temporary:
        temporary.mkdir(mode=0o700)
        for path in kept.files:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from error
            (temporary / path.name).write_bytes(content[: content.rfind(b"\n") + 1])  # what is being written is later


def last_turn() -> TurnRecord | None:
    """Return the last turn that ended. Raises UserError for a damaged record."""
    return TurnRecord.read(TURN_RECORD) if TURN_RECORD.is_file() else None


def turn_under_way() -> Turn | None:
    """Return the turn that was begun and has not ended. Raises UserError for a damaged state."""
    return Turn.read(STATE) if STATE.is_file() else None


def end(outcome: TurnRecord | None = None) -> None:
    """Keep what came of the turn, if anything, and then remove its copy of what visitors said."""
    if outcome:
        outcome.write(TURN_RECORD)
    STATE.unlink(missing_ok=True)
    if (INPUTS / "feedback").resolve() == RECORDS.resolve():
        link_inputs({"feedback": None})  # DVC takes no link that leads nowhere
    shutil.rmtree(RECORDS, ignore_errors=True)
