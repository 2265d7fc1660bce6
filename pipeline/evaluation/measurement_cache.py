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
from typing import Any

from common.files import write_json

logger = logging.getLogger(__name__)

NAME = "evaluation-"  # of its folder, before the digest


class MeasurementCache:
    """The measurements of one evaluation, each in a file of its own."""

    def __init__(self, folder: Path, depends: object) -> None:
        """Begin one below `folder`, for a digest of all that the measurements depend on; any other there goes."""
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / f"{NAME}{digest}"
        for other in folder.glob(f"{NAME}*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what was measured under a name; where it was not, `measure` does it now. JSON, with null for nan."""
        path = self.folder / f"{name}.json"
        if path.is_file():
            logger.info(f"{name}: measured before ({path})")
        else:
            logger.info(f"measuring {name}")
            write_json(path, _finite(measure()))
        return json.loads(path.read_text(encoding="utf-8"))


def _finite(value: object) -> object:
    """Return the same with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
