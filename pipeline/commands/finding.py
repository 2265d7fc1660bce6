"""What a check of `tunesmith doctor` has found."""

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How bad a finding is: a problem keeps `dvc repro` from running."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    status: Status
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


def ok(what: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(Status.OK, what)


def note(what: str, remedy: str) -> Finding:
    """Return a finding that some uses of the pipeline ask to mend."""
    return Finding(Status.NOTE, what, remedy)


def problem(what: str, remedy: str) -> Finding:
    """Return a finding that keeps `dvc repro` from running."""
    return Finding(Status.PROBLEM, what, remedy)
