"""What an interrupted evaluation has measured already, so that the next run of the same goes on with it."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.files import write_json


class Kept:
    """The measurements of one evaluation, each in a file of its own until the reports are written."""

    def __init__(self, folder: Path, depends: Any) -> None:
        """Below `folder`, by a digest of all that the measurements depend on."""
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / f"evaluation-{digest}"

    def part(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under this name; where it was not, `measure` does it now. JSON, with null for nan."""
        path = self.folder / f"{name}.json"
        if path.is_file():
            print(f"{name}: measured before the interruption", flush=True)
        else:
            print(f"measuring {name}", flush=True)
            write_json(path, _finite(measure()))
        return json.loads(path.read_text(encoding="utf-8"))

    def remove(self) -> None:
        """Once all of it stands in the reports."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _finite(value: Any) -> Any:
    """The same with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
