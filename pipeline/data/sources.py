"""Where rows come from: files under the repository, or a dataset of the Hugging Face hub."""

import errno
import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.data.lines import BadLine, Row, Rows, one_line
from pipeline.data.readers import COMPRESSIONS, READERS, is_readable, read_file

HUB_TIMEOUT_S = 30
# What a clone of a hub dataset and `save_to_disk` have beside the data.
METADATA = ("README.md", "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
OFFLINE_WAYS = "data=starter and data=local work offline"


@dataclass(frozen=True)
class Source:
    """One file or one hub split: its name in messages and reports, and its rows, read as they are asked for."""

    name: str
    rows: Iterable[Row | BadLine]
    total: int | None = None  # the number of rows, where it is known before reading
    revision: str | None = None  # the hub's commit
    split: str | None = None  # train, validation or test, where the set has splits of its own


def load(settings: DataSettings, root: Path) -> list[Source]:
    """Return the sources that `settings` name, files in sorted order.

    Raises:
        UserError: no file matches, a file has an unknown suffix, or the hub does not give the dataset.
    """
    if settings.source == "hub":
        return [_hub_source(settings)]
    readable, ignored = find_files(settings, root)
    if not readable:
        seen = f" (ignored: {', '.join(ignored)})" if ignored else ""
        raise UserError(
            f"no data file matches {', '.join(settings.files)}{seen}; "
            f"put {', '.join(READERS)} files there (or with {', '.join(filter(None, COMPRESSIONS))} after it), "
            "or run with data=starter"
        )
    return [_file_source(root / name, name) for name in readable]


def find_files(settings: DataSettings, root: Path) -> tuple[list[str], list[str]]:
    """Return the files that match `settings.files`.

    Those with a known suffix, and the others. Hidden files are left out; a dataset's metadata is among the others.
    """
    names: set[str] = set()
    for pattern in settings.files:
        # Path.glob neither follows linked folders nor leaves hidden files out.
        names.update(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
    files = sorted(Path(name).as_posix() for name in names if (root / name).is_file())
    readable = [name for name in files if is_readable(name) and Path(name).name not in METADATA]
    return readable, [name for name in files if name not in set(readable)]


def why_ignored(name: str) -> str:
    """Return why a file that matches is not read."""
    return "a dataset's metadata" if Path(name).name in METADATA else "unknown suffix"


def _file_source(path: Path, name: str) -> Source:
    return Source(name, _rows(path, name))


def _rows(path: Path, name: str) -> Rows:
    """Yield the rows of a file; an error of the file system ends in one line."""
    try:
        before = path.stat()
        yield from read_file(path)
        after = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or one_line(error)}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{name} was changed while it was read; run again when it is whole")


def read_jsonl(path: Path, name: str) -> list[Any]:
    """Return all values of a JSONL file; `name` is what error messages call it.

    Raises:
        UserError: a line cannot be read, or there is none.
    """
    values = []
    for row in _rows(path, name):
        if isinstance(row, BadLine):
            raise UserError(f"{name}, line {row.line}: {row.reason}; correct it or take it out")
        values.append(row.value)
    if not values:
        raise UserError(f"{name} is empty: it holds no row; fill it or take it away")
    return values


def _hub_source(settings: DataSettings) -> Source:
    path = str(settings.path)
    revision = resolve_revision(path, settings.revision)
    dataset = _load_hub_split(settings, path, revision)
    if len(dataset) == 0:
        raise UserError(f"the split {settings.split} of {path} is empty; set data.split to another")
    name = ":".join(part for part in (path, settings.subset, settings.split) if part)
    rows = (Row(number, row) for number, row in enumerate(dataset, start=1))
    return Source(name, rows, total=len(dataset), revision=revision)


def resolve_revision(path: str, revision: str | None) -> str:
    """Return the commit that a branch, a tag or the default branch of a hub dataset stands at now, asked of the hub.

    A full commit is taken as it is, so that a pinned dataset loads from the cache under HF_HUB_OFFLINE.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        commit = HfApi().dataset_info(path, revision=revision, timeout=HUB_TIMEOUT_S).sha
    except OfflineModeIsEnabled as error:
        raise UserError(
            f"HF_HUB_OFFLINE is set, so the hub cannot be asked for the revision of {path}; "
            f"unset it, or set data.revision to a commit that is in the cache; {OFFLINE_WAYS}"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise _refused(path, error) from error
    except (httpx.HTTPError, OSError) as error:
        raise _unreachable(path, error) from error
    if commit is None:
        raise UserError(f"the hub names no commit for {path}; set data.revision to one")
    return commit


def _load_hub_split(settings: DataSettings, path: str, revision: str) -> Any:
    """Return the split at `revision`.

    The steps of `datasets.load_dataset`, with the builder's commit checked between them.
    """
    import datasets
    import httpx

    try:
        builder = datasets.load_dataset_builder(path, name=settings.subset, revision=revision)
        # Where a revision is out of reach, `datasets` takes the latest one in its cache and only logs it.
        if builder.hash != revision:
            raise UserError(
                f"{path} at {revision} cannot be had, and the cache holds another revision; check the network, "
                f"HF_HUB_OFFLINE and data.revision; {OFFLINE_WAYS}"
            )
        builder.download_and_prepare()
        return builder.as_dataset(split=settings.split)
    except (ConnectionError, httpx.TransportError) as error:
        raise _unreachable(path, error) from error
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        raise _refused(path, error) from error


def _unreachable(path: str, error: Exception) -> UserError:
    return UserError(
        f"cannot reach the Hugging Face hub for {path} ({one_line(error)}); "
        f"check the network, HF_ENDPOINT and proxy settings, then run again; {OFFLINE_WAYS}"
    )


def _refused(path: str, error: Exception) -> UserError:
    causes = (error, error.__cause__)  # a full disk while the cache is written comes wrapped
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return UserError(f"the disk is full while {path} is put into the cache; make room, or set HF_HOME elsewhere")
    return UserError(
        f"the Hugging Face hub did not give {path} ({one_line(error)}); check data.path, data.subset, data.split "
        f"and data.revision, and for a private or gated dataset set HF_TOKEN; {OFFLINE_WAYS}"
    )
