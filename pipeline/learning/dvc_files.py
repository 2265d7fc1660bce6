"""Files that DVC writes in place, and a kill leaves half of: put right before it runs again.

`dvc.lock` comes back as it was when the turn began. What stages have done since, DVC finds in its run-cache.
"""

import json
import shutil
from pathlib import Path

import yaml

from common.files import atomic_path
from pipeline.core.paths import TURN

LOCK, KEPT = Path("dvc.lock"), TURN / "dvc.lock"
RUNNING = Path(".dvc/tmp/rwlock")  # which processes read and write what


def keep() -> None:
    """Keep dvc.lock as it is."""
    with atomic_path(KEPT) as temporary:
        temporary.write_bytes(LOCK.read_bytes() if LOCK.is_file() else b"")


def mend() -> None:
    """Put back a dvc.lock that is damaged, and take away a list of processes that is: whoever wrote it is gone."""
    if LOCK.is_file() and not _is_lock(LOCK):
        with atomic_path(LOCK) as temporary:
            shutil.copy(KEPT, temporary)
    if RUNNING.is_file() and not _is_json(RUNNING):
        RUNNING.unlink()


def _is_lock(path: Path) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # a second to import
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_bytes()) or {})
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return False
    return True


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
