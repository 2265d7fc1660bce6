"""Records of feedback come in versions, of which the latest counts, wherever it stands."""

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

SCHEMAS = (1, 2)  # of records, as serve/feedback/records.py writes them

Said = TypeVar("Said")


class Version(NamedTuple):
    """When a version of a record was written, and where it stands: of two of one time the last one is the later."""

    time: str
    name: str  # of its file
    line: int


class Latest(Generic[Said]):
    """What the latest version of each record says."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._of: dict[str, tuple[Version, Said]] = {}

    def add(self, record: str, version: Version, said: Said) -> Version | None:
        """Take in a version, in whatever order they come; return the one that another replaces."""
        known = self._of.get(record)
        if known is None or known[0] <= version:
            self._of[record] = version, said
            return known and known[0]
        return version

    def __iter__(self) -> Iterator[tuple[Version, Said]]:
        return iter(self._of.values())
