"""data/forgotten.json: who is forgotten, and by which digests what was made of their records is known."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from pipeline.core.mappings import flatten
from pipeline.core.paths import FORGOTTEN
from pipeline.core.records import Lineage, Record


class Traces(Record):
    """Digests of what had a visitor's records, or was made of them; nothing of what they said."""

    files: tuple[str, ...] = ()  # SHA-256: of the server's, and of rows made of them
    datasets: tuple[str, ...] = ()  # names on the hub
    prepared: tuple[str, ...] = ()  # of what was learnt from: the data digest of trainings
    folders: tuple[str, ...] = ()  # DVC's, of prepared data
    fingerprints: tuple[str, ...] = ()  # of trainings

    def with_more(self, more: "Traces") -> "Traces":
        """Return both together."""
        return Traces(**{name: tuple(sorted({*getattr(self, name), *getattr(more, name)})) for name in FIELDS})

    def made(self, settings: Mapping[str, object], files: Mapping[str, str]) -> bool:
        """Return whether data were made of files with the records, by the settings and the digests of their files."""
        flat = flatten(settings)
        named = {value for key, value in flat.items() if key.split(".")[-1] == "path"}
        return bool({*files.values()} & {*self.files} or named & {*self.datasets})

    def learnt_by(self, lineage: Lineage) -> bool:
        """Return whether an adapter was trained with the records, or went on from one that was."""
        data = lineage.data
        return bool({*lineage.trainings} & {*self.fingerprints} or (data and self.made(data.settings, data.files)))


FIELDS = tuple(Traces.model_fields)


class Forgotten(Record):
    """Visitors by digests of their names: no other copy of their records is learnt from either."""

    made_by: ClassVar[str] = "forget"

    schema_version: int = 1
    visitors: dict[str, Traces] = Field(default_factory=dict)

    @classmethod
    def remedy(cls) -> str:
        """Return what to do about a file that is damaged, or another version's."""
        return "without it nobody knows who is forgotten: bring it back from a copy"

    @classmethod
    def there(cls, root: Path) -> Self:
        """Return what is known below a folder. Raises UserError for a damaged file."""
        path = root / FORGOTTEN
        return cls.read(path) if path.is_file() else cls()

    @property
    def digests(self) -> frozenset[str]:
        """Who is forgotten."""
        return frozenset(self.visitors)

    @property
    def traces(self) -> Traces:
        """What is known of all visitors together."""
        together = Traces()
        for traces in self.visitors.values():
            together = together.with_more(traces)
        return together

    def of(self, visitor: str) -> Traces:
        """Return what is known of a visitor."""
        return self.visitors.get(digest_of_visitor(visitor), Traces())

    def remember(self, root: Path, visitor: str, traces: Traces) -> Traces:
        """Add traces of a visitor, on the disk when this returns; return all that are known."""
        known = Forgotten.there(root)
        together = known.of(visitor).with_more(traces)
        visitors = {**known.visitors, digest_of_visitor(visitor): together}
        Forgotten(schema_version=1, visitors=visitors).write(root / FORGOTTEN)
        return together


def digest_of_visitor(visitor: str) -> str:
    """Return by what a visitor who is forgotten is known: nothing else that is kept has it."""
    return hashlib.sha256(f"forgotten {visitor}".encode()).hexdigest()
