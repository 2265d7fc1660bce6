"""Files that DVC writes in place, and a kill leaves half of: put right before it runs again.

Each stage keeps dvc.lock as DVC has it then, which is whole. So it comes back as it was when the last stage began;
what that one did, DVC finds in its run-cache.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

import yaml

from common.files import atomic_path

OF_DVC = Path(".dvc/tmp")
LOCK, KEPT = Path("dvc.lock"), OF_DVC / "dvc.lock"
RUNNING = OF_DVC / "rwlock"  # which processes read and write what
CONFLICT = b"<<<<<<< "


def keep() -> None:
    """Keep dvc.lock as it is, if this is a stage that DVC runs. Raises MachineError on a full disk."""
    if "DVC_STAGE" in os.environ and LOCK.is_file():
        with atomic_path(KEPT) as temporary:
            temporary.write_bytes(LOCK.read_bytes())


def damaged() -> list[Path]:
    """Return which of the files are not whole."""
    return [path for path, is_whole in CHECKS.items() if path.is_file() and not is_whole(path)]


def mend() -> None:
    """Put back a dvc.lock that is damaged, as far as it was kept, and take away a list of processes that is.

    Where DVC runs it writes them at this moment, and all stays as it is.
    """
    if not OF_DVC.parent.is_dir() or not damaged():
        return
    OF_DVC.mkdir(exist_ok=True)
    from dvc.lock import LockError, make_lock

    with suppress(LockError), make_lock(str(OF_DVC / "lock")):
        for path in damaged():
            if path == LOCK and KEPT.is_file() and _is_lock(KEPT):
                with atomic_path(LOCK) as temporary:
                    temporary.write_bytes(KEPT.read_bytes())
                done = "it is what it was when the last stage began"
            else:
                path.unlink()
                done = "it is removed"
            print(f"{path} was cut short, as by a kill of DVC: {done}")


def _is_lock(path: Path) -> bool:
    content = path.read_bytes()
    if path != KEPT and KEPT.is_file() and content == KEPT.read_bytes():
        return True
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # a second to import
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(content))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return CONFLICT in content  # of git's, which is a user's to mend, and DVC names it
    return True


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


CHECKS = {LOCK: _is_lock, RUNNING: _is_json}
