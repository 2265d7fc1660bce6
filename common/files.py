"""Artifacts that are either complete under their final name or not there at all."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import MachineError

NO_ROOM = 2**20  # bytes left on a disk that counts as full


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside `final` and rename it there when the block ends well.

    The block may make a file or a folder at the yielded path. Where `final` exists it is replaced. When the block
    raises, the temporary path is removed and `final` is left as it was. What a killed process left of an earlier try
    is removed first: one process at a time may write a `final`.

    Raises:
        MachineError: the disk is full or the folder cannot be written.
    """
    temporary, aside = final.with_name(f".{final.name}.tmp"), final.with_name(f".{final.name}.old.tmp")
    try:
        _make_folder(final.parent)
        _remove(temporary)
        _remove(aside)
        try:
            yield temporary
            flush(temporary)
            # A folder cannot be replaced, nor take a file's place, nor be removed in one step.
            if _is_folder(final) or (_is_folder(temporary) and os.path.lexists(final)):
                final.rename(aside)
            os.replace(temporary, final)
        finally:
            if os.path.lexists(aside) and not os.path.lexists(final):  # the second of the two renames failed
                aside.rename(final)
            _remove(temporary)
            _remove(aside)
    except Exception as error:
        reason = unwritable(error)
        if reason is None:
            raise
        raise MachineError(
            f"cannot write {final}: {reason}; make room or grant access there, then run again"
        ) from error


def write_text(final: Path, text: str) -> None:
    """Write `text` as UTF-8 to `final`, atomically."""
    with atomic_path(final) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(final: Path, value: Any) -> None:
    """Write `value` as indented JSON to `final`, atomically; NaN and infinity are refused."""
    write_text(final, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """Return the hex digest of a file, or of a folder: its files' relative names and contents, in sorted order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file_path.relative_to(path).as_posix()}\0{sha256(file_path)}\n".encode())
    return digest.hexdigest()


def disk_full(folder: Path) -> str | None:
    """Return the system's words for a full disk, if `folder` is on one; some libraries fail without saying why."""
    return os.strerror(errno.ENOSPC) if folder.is_dir() and shutil.disk_usage(folder).free < NO_ROOM else None


def unwritable(error: Exception) -> str | None:
    """Return why the disk refused, if it is the disk that `error` speaks of.

    Libraries in other languages say it in words.
    """
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
        if (isinstance(error, OSError) and error.errno == number) or os.strerror(number) in str(error):
            return os.strerror(number)
    return None


def flush(path: Path) -> None:
    """Force a file, or each file of a folder, to the disk: a rename must not outlive its content."""
    for file_path in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file_path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise MachineError(
            f"cannot make the folder {folder}: a file has its name; move that, then run again"
        ) from error


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):  # on a read-only disk, unlink refuses what is not there, too
        path.unlink(missing_ok=True)
