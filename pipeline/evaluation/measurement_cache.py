"""What an evaluation has measured, kept until what it depends on changes.

So one that was interrupted goes on, and one that runs again for another reason measures nothing twice.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from common.files import write_json

logger = logging.getLogger(__name__)

NAME = "evaluation-"  # of its folder, before the digest


class Kept(TypedDict):
    """A measurement's file. Its digest tells a whole one from one that a disk has damaged."""

    sha256: str
    measured: object


class MeasurementCache:
    """The measurements of one evaluation, each in a file of its own."""

    def __init__(self, folder: Path, depends: object) -> None:
        """Begin one below `folder`, for a digest of all that the measurements depend on; any other there goes."""
        self.folder = folder / f"{NAME}{_digest(depends)[:16]}"
        for other in folder.glob(f"{NAME}*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what was measured under a name; where it was not, `measure` does it now. JSON, with null for nan."""
        path = self.folder / f"{name}.json"
        if kept := _read(path):
            logger.info(f"{name}: measured before ({path})")
            return kept["measured"]
        logger.info(f"measuring {name}")
        measured = json.loads(json.dumps(_finite(measure())))  # as it will be read
        write_json(path, Kept(sha256=_digest(measured), measured=measured))
        return measured


def _read(path: Path) -> Kept | None:
    """Return what is kept in a file; None where it is missing or, with a warning, damaged."""
    if not path.exists():
        return None
    try:
        kept: Kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["sha256"] == _digest(kept["measured"]):
            return kept
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        pass
    logger.warning(f"{path} is damaged: it is measured anew")
    return None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _finite(value: object) -> object:
    """Return the same with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
