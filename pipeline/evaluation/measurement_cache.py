"""What an evaluation has measured, kept until what it depends on changes.

So one that was interrupted goes on, and one that runs again for another reason measures nothing twice. What is measured
of each row or question is kept row by row, whatever made an evaluation ask for it: another number of rows, another
order or another gate measures what is missing alone.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from common.files import write_json, write_text
from common.words import counted

logger = logging.getLogger(__name__)

NAME = "evaluation-"  # of its folder, before the digest
SAVE_SECONDS = 1.0  # after which what was measured since is written: so much of it is lost where a process is killed


class Kept(TypedDict):
    """A measurement's file, or a line of it. Its digest tells a whole one from one that a disk has damaged."""

    sha256: str
    measured: object


class Batch(TypedDict):
    """What was measured of some rows, by their keys, and how long it took."""

    values: dict[str, object]
    seconds: float


class Each(NamedTuple):
    """What was measured of each row."""

    values: list[Any]
    per_second: float | None  # rows; None where there were none


class MeasurementCache:
    """The measurements of one evaluation, each in a file of its own."""

    def __init__(self, folder: Path, depends: object) -> None:
        """Begin one below `folder`, for a digest of all that every measurement depends on; any other there goes."""
        self.folder = folder / f"{NAME}{digest(depends)[:16]}"
        self._said: set[Path] = set()
        for other in folder.glob(f"{NAME}*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def get(self, name: str, measure: Callable[[], Any], depends: object = None) -> Any:
        """Return what was measured under a name, JSON with null for nan; where it was not, `measure` does it now.

        Args:
            name: of the measurement.
            measure: takes it.
            depends: on what else it depends.
        """
        path = self._path(name, depends, "json")
        if kept := _read(path):
            self._say_kept(name, path)
            return kept["measured"]
        logger.info(f"measuring {name}")
        measured = json.loads(json.dumps(_finite(measure())))  # as it will be read
        write_json(path, _whole(measured))
        return measured

    def each(
        self,
        name: str,
        keys: Sequence[str],
        measure: Callable[[list[int]], Iterable[tuple[int, object]]],
        depends: object = None,
    ) -> Each:
        """Return what was measured of each row; what was not is measured now, and written as it comes.

        Args:
            name: of the measurement.
            keys: of the rows, each telling all that its result depends on and the others' does not.
            measure: is given the places of those that are missing, and gives, in any order, the number of each among
                these and its result.
            depends: on what else all results depend.
        """
        if not keys:
            return Each([], None)
        path = self._path(name, depends, "jsonl")
        values, seconds = _merged(_read_batches(path))
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        missing = sorted(place for key, place in first.items() if key not in values)
        if not missing:
            self._say_kept(name, path)
        else:
            logger.info(f"measuring {name}" + (f", {counted(len(missing), 'more row')}" if values else ""))
            _measure_each(path, [keys[place] for place in missing], measure(missing))
            values, seconds = _merged(_read_batches(path))
        return Each([values[key] for key in keys], len(values) / seconds if seconds else None)

    def _path(self, name: str, depends: object, kind: str) -> Path:
        return self.folder / f"{name}{f'-{digest(depends)[:8]}' if depends is not None else ''}.{kind}"

    def _say_kept(self, name: str, path: Path) -> None:
        if path not in self._said:
            logger.info(f"{name}: measured before ({path})")
        self._said.add(path)


def _measure_each(path: Path, keys: Sequence[str], results: Iterable[tuple[int, object]]) -> None:
    """Write results as they come, also those before an error."""
    batch, start = Batch(values={}, seconds=0.0), time.perf_counter()
    try:
        for number, result in results:
            batch["values"][keys[number]] = _finite(result)
            batch["seconds"] = time.perf_counter() - start
            if batch["seconds"] >= SAVE_SECONDS:
                _append(path, batch)
                batch, start = Batch(values={}, seconds=0.0), time.perf_counter()
    finally:
        if batch["values"]:
            _append(path, batch)


def _append(path: Path, batch: Batch) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_whole(batch)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _merged(batches: list[Batch]) -> tuple[dict[str, object], float]:
    """Return all values, and the seconds that all took."""
    values = {key: value for batch in batches for key, value in batch["values"].items()}
    return values, sum(batch["seconds"] for batch in batches)


def _read_batches(path: Path) -> list[Batch]:
    """Return the whole lines of a file; those that are damaged, as the last of a killed process is, go from it."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    kept = [whole for line in lines if line and (whole := _parsed(line))]
    if len(kept) < sum(map(bool, lines)) or lines[-1]:
        logger.warning(f"{path} is damaged: what is lost of it is measured anew")
        write_text(path, "".join(json.dumps(whole) + "\n" for whole in kept))
    return [whole["measured"] for whole in kept]  # type: ignore[misc]  # the digest says that it is what was written


def _read(path: Path) -> Kept | None:
    """Return what is kept in a file; None where it is missing or, with a warning, damaged."""
    if not path.exists():
        return None
    if (kept := _parsed(path.read_bytes())) is None:
        logger.warning(f"{path} is damaged: it is measured anew")
    return kept


def _parsed(text: bytes) -> Kept | None:
    """Return a measurement as it was written; None of what is damaged."""
    try:
        kept: Kept = json.loads(text.decode())
        return kept if kept["sha256"] == digest(kept["measured"]) else None
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _whole(measured: object) -> Kept:
    return Kept(sha256=digest(measured), measured=measured)


def digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _finite(value: object) -> object:
    """Return the same with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
