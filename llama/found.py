"""What is found out of the vocabulary in a model's file: once, however often it is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

T = TypeVar("T")


class Found:
    """What is known of one file."""

    def __init__(self) -> None:
        self._known: dict[str, object] = {}

    def once(self, name: str, find: Callable[[], T]) -> T:
        """Return what goes by a name, found where it is not known."""
        if name not in self._known:
            self._known[name] = find()
        return cast(T, self._known[name])


_files: dict[tuple[Path, int, int], Found] = {}  # by path, bytes and time


def found_of(file: Path) -> Found:
    """Return what is known of a file, as long as it stays as it is; nothing of one that is gone."""
    try:
        stat = file.stat()
    except OSError:
        return Found()
    return _files.setdefault((file.absolute(), stat.st_size, stat.st_mtime_ns), Found())
