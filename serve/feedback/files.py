"""Files of records, and what makes them last."""

import os
from pathlib import Path

PATTERN = "feedback-*.jsonl"


def record_files(folder: Path) -> list[Path]:
    """Return the files of records, the oldest first."""
    return sorted(folder.glob(PATTERN))


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes) -> None:
    """Write a file that is whole under its name, or as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
