"""Files of a package index, fetched by pip and checked by their hash, and the cache that they are kept in.

Only the standard library is imported: `scripts/setup.py` comes by here before anything is installed.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from common.files import sha256


def cache_root() -> Path:
    """Return where all that was fetched is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold other processes back, so that jobs started at once fetch and build one time between them.

    Args:
        folder: of the cache; made where it is missing, and cleared of the `work-*` that a killed process has left.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; set XDG_CACHE_HOME to a writable folder") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob("work-*"):  # of a process that was killed, since the lock is ours
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def download(requirement: str, into: Path, *options: str) -> Path:
    """Fetch one package's file through pip, and so from whichever index pip is configured for.

    Args:
        requirement: name and exact version.
        into: a folder that holds nothing else.
        options: of `pip download`, such as which kind of file.

    Raises:
        UserError: no index answers, or it has no such file.
    """
    done = pip(["download", "--no-deps", *options, "--dest", str(into), requirement])
    files = list(into.glob("*"))
    if done.returncode or not files:
        raise UserError(
            f"cannot fetch {requirement} with pip ({last_error(done)}); check the network and pip's index, "
            "then run again"
        )
    return files[0]


def require_sha256(file: Path, expected: str) -> None:
    """Raise a `UserError` for a file that is not the one expected."""
    if (found := sha256(file)) != expected:
        raise UserError(
            f"{file.name} from the package index has sha256 {found}, expected {expected}: "
            "the index or a cache on the way serves another file; try `pip cache purge` or another index"
        )


def pip(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run this Python's pip; what it says on both channels is in `stdout`."""
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )


def last_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line of a command's output that says most: the last that speaks of an error, else the last."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in done.stdout.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(CMake )?(fatal )?error\b|.*: (fatal )?error:", line, re.IGNORECASE)]
    return (errors or lines or [f"status {done.returncode}"])[-1]
