"""Rows under the names that the formats know: `data.columns`, `data.roles`, and without what `data.ignore` names."""

from functools import lru_cache
from typing import NamedTuple

from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import TURN_COLUMNS, plain_name
from pipeline.core.messages import parsed
from pipeline.core.tool_calls import TOOLS_COLUMNS

ROLE_KEYS = ("role", "from")
SET_ASIDE = "{} (not mapped)"


class Names(NamedTuple):
    """What the keys of a row become, and those that are ignored."""

    ours: dict[object, object]
    ignored: frozenset[str]


def named(settings: DataSettings) -> set[str]:
    """Return what `data.columns`, `data.roles` and `data.ignore` name: `columns.frage`."""
    parts = (("columns", settings.columns or {}), ("roles", settings.roles or {}), ("ignore", settings.ignore))
    return {f"{part}.{plain_name(name)}" for part, names in parts for name in names}


class Mapping:
    """What the settings call keys and roles; names are compared without case and the space around them."""

    def __init__(self, settings: DataSettings) -> None:
        self._columns = {plain_name(theirs): ours for theirs, ours in (settings.columns or {}).items()}
        self._roles = {plain_name(theirs): ours for theirs, ours in (settings.roles or {}).items()}
        self._ignored = {plain_name(key) for key in settings.ignore}
        self._names = lru_cache(maxsize=1000)(self._name)  # rows have few sets of keys among them
        self.met: set[str] = set()  # which of these names rows have, as `named` calls them

    def __bool__(self) -> bool:
        return bool(self._columns or self._roles or self._ignored)

    def ignored_in(self, row: object) -> set[str]:
        """Return the ignored keys that a row has, or a turn in it."""
        if not self._ignored or not isinstance(row, dict):
            return set()
        parts = [row, *(item for value in row.values() if isinstance(value, list) for item in value)]
        return set().union(*(self._names(tuple(part)).ignored for part in parts if isinstance(part, dict)))

    def apply(self, row: object) -> object:
        """Return a row, and the turns in it, as the formats read it."""
        if not self or not isinstance(row, dict):
            return row
        return {key: self._cell(key, value) for key, value in self._keys(row).items()}

    def _cell(self, key: object, value: object) -> object:
        if plain_name(key) in TOOLS_COLUMNS:  # whose keys are those of schemas
            return value
        if key in TURN_COLUMNS:  # a CSV cell holds turns as JSON
            value = parsed(value)
        if isinstance(value, dict):
            return self._turn(value)
        return [self._turn(item) for item in value] if isinstance(value, list) else value

    def _turn(self, turn: object) -> object:
        if not isinstance(turn, dict):
            return turn
        keys = self._keys(turn)
        for key in ROLE_KEYS:
            if key in keys:
                keys[key] = self._role(keys[key])
        return keys

    def _role(self, name: object) -> object:
        if (folded := plain_name(name)) not in self._roles:
            return name
        self.met.add(f"roles.{folded}")
        return self._roles[folded]

    def _keys(self, row: dict[object, object]) -> dict[object, object]:
        """Return a row under our names, without what is ignored."""
        return {ours: row[theirs] for theirs, ours in self._names(tuple(row)).ours.items()}

    def _name(self, names: tuple[object, ...]) -> Names:
        """Return what keys become; what has such a name beside one that is mapped to it is set aside."""
        folded_names = set(map(plain_name, names))
        self.met |= {f"columns.{name}" for name in folded_names & self._columns.keys()}
        self.met |= {f"ignore.{name}" for name in folded_names & self._ignored}
        kept = [name for name in names if name is None or plain_name(name) not in self._ignored]
        taken = {self._columns.get(plain_name(name)) for name in kept}
        ours = {
            name: self._columns.get(folded := plain_name(name), SET_ASIDE.format(name) if folded in taken else name)
            for name in kept
        }
        return Names(ours, frozenset(plain_name(name) for name in names if name not in ours))
