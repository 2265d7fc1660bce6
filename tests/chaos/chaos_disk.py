"""A file system of a few megabytes, which a training fills. Mounting it needs root or a user namespace."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INSIDE = "TUNESMITH_CHAOS_NAMESPACE"  # set where the harness has started itself again


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    if shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory(prefix="tunesmith-chaos-mount-") as folder:
        if not quietly("mount", "-t", "tmpfs", "-o", "size=64k", "none", folder):
            return False
        return quietly("umount", folder)


def enter_namespace() -> None:
    """Starts this program again where it may mount, if it may not here and the system allows that."""
    if not can_mount() and INSIDE not in os.environ and quietly("unshare", "-rm", "true"):
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])  # noqa: S606 -- nothing for a shell to do


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of `size` bytes at `folder` while the block runs."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def give_room(folder: Path) -> None:
    """Makes the small file system large."""
    subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)


def quietly(*command: str) -> bool:
    """Whether a command is there and succeeds."""
    return shutil.which(command[0]) is not None and not subprocess.run(command, capture_output=True).returncode
