"""Rows under the names that the formats know: `data.columns`, `data.roles`, and without what `data.ignore` names."""

import json

from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import TURN_COLUMNS

ROLE_KEYS = ("role", "from")
SET_ASIDE = "{} (not mapped)"


class Mapping:
    """What the settings call keys and roles; names are compared without case and the space around them."""

    def __init__(self, settings: DataSettings) -> None:
        self._columns = {_folded(theirs): ours for theirs, ours in (settings.columns or {}).items()}
        self._roles = {_folded(theirs): ours for theirs, ours in (settings.roles or {}).items()}
        self._ignored = {_folded(key) for key in settings.ignore}

    def __bool__(self) -> bool:
        return bool(self._columns or self._roles or self._ignored)

    def ignored_in(self, row: object) -> set[str]:
        """Return the ignored keys that a row has, or a turn in it."""
        if not self._ignored or not isinstance(row, dict):
            return set()
        parts = [row, *(item for value in row.values() if isinstance(value, list) for item in value)]
        return {_folded(key) for part in parts if isinstance(part, dict) for key in part} & self._ignored

    def apply(self, row: object) -> object:
        """Return a row, and the turns in it, as the formats read it."""
        if not self or not isinstance(row, dict):
            return row
        return {key: self._cell(key, value) for key, value in self._keys(row).items()}

    def _cell(self, key: object, value: object) -> object:
        if isinstance(value, str) and key in TURN_COLUMNS:  # a CSV cell holds turns as JSON
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return value
        if isinstance(value, dict):
            return self._turn(value)
        return [self._turn(item) for item in value] if isinstance(value, list) else value

    def _turn(self, turn: object) -> object:
        if not isinstance(turn, dict):
            return turn
        keys = self._keys(turn)
        for key in ROLE_KEYS:
            if key in keys:
                keys[key] = self._roles.get(_folded(keys[key]), keys[key])
        return keys

    def _keys(self, row: dict[object, object]) -> dict[object, object]:
        """Return a row under our names; what has such a name beside one that is mapped to it is set aside."""
        kept = {key: value for key, value in row.items() if key is None or _folded(key) not in self._ignored}
        taken = {self._columns.get(_folded(key)) for key in kept}
        return {
            self._columns.get(name := _folded(key), SET_ASIDE.format(key) if name in taken else key): value
            for key, value in kept.items()
        }


def _folded(name: object) -> str:
    return str(name).strip().lower()
