"""Where rows come from: files under the repository, or a dataset of the Hugging Face hub."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.core.messages import is_unicode
from pipeline.data.hub import HubSplit, load_splits
from pipeline.data.lines import BadLine, Row, Rows, SetAside, one_line
from pipeline.data.readers import COMPRESSIONS, READERS, is_readable, read_file

# What a clone of a hub dataset and `save_to_disk` have beside the data.
METADATA = ("README.md", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")


@dataclass(frozen=True)
class Source:
    """One file or one hub split: its name in messages and reports, and its rows, read anew as often as asked for."""

    name: str
    rows: Iterable[Row | BadLine | SetAside]
    total: int | None = None  # the number of rows, where it is known before reading
    revision: str | None = None  # the hub's commit
    split: str | None = None  # by the hub's name; once told, train, validation or test
    group: str = ""  # the name that data.sources has for it, where that says what is read


def load(settings: DataSettings, root: Path) -> list[Source]:
    """Return the sources that `settings` name, files in sorted order.

    Raises:
        UserError: no file matches, a file has an unknown suffix, or the hub does not give the dataset.
    """
    if settings.source == "hub":
        return [_hub_source(str(settings.path), settings.subset, split) for split in load_splits(settings)]
    readable, ignored = find_files(settings, root)
    if not readable:
        seen = f" (ignored: {', '.join(ignored)})" if ignored else ""
        raise UserError(
            f"no data file matches {', '.join(settings.files)}{seen}; "
            f"put {', '.join(READERS)} files there (or with {', '.join(filter(None, COMPRESSIONS))} after it), "
            "or run with data=starter"
        )
    return [Source(name, FileRows(root / name, name)) for name in readable]


def find_files(settings: DataSettings, root: Path) -> tuple[list[str], list[str]]:
    """Return the files that match `settings.files`.

    Those with a known suffix, and the others. Hidden files are left out; a dataset's metadata is among the others.

    Raises:
        UserError: a name is no UTF-8, which no report can have.
    """
    names: set[str] = set()
    for pattern in settings.files:
        # Path.glob neither follows linked folders nor leaves hidden files out.
        names.update(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
    found = [Path(name) for name in sorted(names, reverse=True) if (root / name).is_file()]
    # A folder that links lead to in several ways, as one that links to itself, is read once.
    places = {(root / path).parent.resolve() / path.name: path for path in found}
    files = sorted(path.as_posix() for path in places.values())
    if unwritten := next((name for name in files if not is_unicode(name)), None):
        raise UserError(f"the name of {os.fsencode(unwritten)!r} is not UTF-8; rename the file")
    readable = [name for name in files if is_readable(name) and Path(name).name not in METADATA]
    return readable, [name for name in files if name not in set(readable)]


def why_ignored(name: str) -> str:
    """Return why a file that matches is not read."""
    return "a dataset's metadata" if Path(name).name in METADATA else "unknown suffix"


@dataclass(frozen=True)
class FileRows:
    """The rows of a file; an error of the file system ends in one line."""

    path: Path
    name: str

    def __iter__(self) -> Rows:
        try:
            before = self.path.stat()
            yield from read_file(self.path)
            after = self.path.stat()
        except OSError as error:
            raise UserError(f"cannot read {self.name}: {error.strerror or one_line(error)}") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise UserError(f"{self.name} was changed while it was read; run again when it is whole")


def read_jsonl(path: Path, name: str) -> list[Any]:
    """Return all values of a JSONL file; `name` is what error messages call it.

    Raises:
        UserError: a line cannot be read, or there is none.
    """
    values = []
    for row in FileRows(path, name):
        if isinstance(row, BadLine):
            raise UserError(f"{name}, line {row.line}: {row.reason}; correct it or take it out")
        values.append(row.value)
    if not values:
        raise UserError(f"{name} is empty: it holds no row; fill it or take it away")
    return values


def _hub_source(path: str, subset: str | None, split: HubSplit) -> Source:
    name = ":".join(part for part in (path, subset, split.name) if part)
    return Source(name, split.rows, split.total, split.revision, split.name)
