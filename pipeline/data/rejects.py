"""Rows that are not taken: all of them in data/rejected.jsonl, and how many there may be."""

import json
from collections import Counter
from typing import NamedTuple, TextIO

from common.errors import UserError
from common.words import counted
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import NOT_TO_BE_LEARNT
from pipeline.core.paths import REJECTED
from pipeline.core.preferences import JUDGED_BAD
from pipeline.data import feedback
from pipeline.data.cleaning_rules import REASONS

DROPPED_PREFERENCE = "a preference"
NAMED = 10  # rejects, in an error
# By the data itself, or by a setting.
ASKED_FOR = REASONS | feedback.ASKED_FOR | {NOT_TO_BE_LEARNT, JUDGED_BAD, DROPPED_PREFERENCE}


class Reject(NamedTuple):
    """A row that is not taken, or the beginning of a line that cannot be read."""

    source: str
    line: int
    reason: str
    row: str  # as JSON

    @property
    def place(self) -> str:
        """Where it stands and why it is not taken, in a few words."""
        return f"{self.source}:{self.line} {self.reason}"


def rejected(source: str, line: int, reason: str, row: object) -> Reject:
    """Return a reject, its row as JSON: one of brackets in thousands can be neither written nor pickled."""
    try:
        return Reject(source, line, reason, json.dumps(row, default=str))
    except (ValueError, RecursionError):
        return Reject(source, line, reason, "null")


class Rejects:
    """The rejects of a run, written as they come; of those some are asked for, and do not count against it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.reasons: Counter[str] = Counter()
        self.bad_lines = 0
        self.first: list[Reject] = []

    def add(self, reject: Reject, is_bad_line: bool = False) -> None:
        """Write a reject and count it."""
        self._file.write(_as_line(reject))
        if reject.reason in ASKED_FOR:
            return
        self.reasons[kind(reject.reason) if is_bad_line else reject.reason] += 1
        self.bad_lines += is_bad_line
        if len(self.first) < NAMED:
            self.first.append(reject)

    def check(self, rows: int, settings: DataSettings) -> None:
        """Refuse more of them than the settings allow, of so many rows.

        Raises:
            UserError: it counts them by reason and names the first.
        """
        rejected = self.reasons.total()
        if self.bad_lines > settings.max_bad_lines:
            problem = (
                f"{counted(self.bad_lines, 'line')} cannot be read (data.max_bad_lines is {settings.max_bad_lines})"
            )
        elif rejected > settings.max_dropped * rows:
            share = f"{rejected:,} of {counted(rows, 'row')} ({rejected / rows:.1%})"
            problem = f"{share} cannot be used (data.max_dropped is {settings.max_dropped:g})"
        else:
            return
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
        first = "; ".join(reject.place for reject in self.first)
        raise UserError(f"{problem}: {reasons}. The first: {first}. All are in {REJECTED}")


def kind(reason: str) -> str:
    """Return a reason without what it says of one line."""
    return reason.partition(" (")[0]


def _as_line(reject: Reject) -> str:
    """Return a reject as JSON, whose last key is that of its row."""
    *_, row = reject
    return f"{json.dumps({**reject._asdict(), 'row': None}).removesuffix('null}')}{row}}}\n"
