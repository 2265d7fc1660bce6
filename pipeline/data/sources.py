"""Where rows come from: files under the repository, or a dataset of the Hugging Face hub."""

import csv
import errno
import glob
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from pipeline.core.data_settings import DataSettings

HUB_TIMEOUT_S = 30
OFFLINE_WAYS = "data=starter and data=local work offline"


@dataclass(frozen=True)
class Source:
    """One file or one hub split: its name in messages and reports, and its rows, read as they are asked for."""

    name: str
    rows: Iterable[Any]
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
            f"put {', '.join(READERS)} files there, or run with data=starter"
        )
    return [_file_source(root / name, name) for name in readable]


def find_files(settings: DataSettings, root: Path) -> tuple[list[str], list[str]]:
    """Return the files that match `settings.files`.

    Those with a known suffix, and the others. Hidden files are left out.
    """
    names: set[str] = set()
    for pattern in settings.files:
        # Path.glob neither follows linked folders nor leaves hidden files out.
        names.update(glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
    files = sorted(Path(name).as_posix() for name in names if (root / name).is_file())
    readable = [name for name in files if Path(name).suffix.lower() in READERS]
    return readable, [name for name in files if name not in set(readable)]


def _file_source(path: Path, name: str) -> Source:
    return Source(name, _rows(path, name))


def _rows(path: Path, name: str) -> Iterator[Any]:
    """Yield the rows of a file; an error of the file system and a file without rows end in one line."""
    empty = True
    try:
        for row in READERS[path.suffix.lower()](path, name):
            empty = False
            yield row
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror or _one_line(error)}") from error
    if empty:
        raise UserError(f"{name} is empty: it holds no row; fill it or take it away")


def _read_jsonl(path: Path, name: str) -> Iterator[Any]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decode(line, name, first_line=number, offset=offset)
            offset += len(line)
            if text.strip():
                yield _parse(text, name, number)


def _read_json(path: Path, name: str) -> Iterator[Any]:
    text = _decode(path.read_bytes(), name)
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line under the name of JSON
            yield from _read_jsonl(path, name)
            return
        raise _invalid_json(name, error.lineno, error.msg) from error
    except (ValueError, RecursionError) as error:
        raise _invalid_json(name, 1, _one_line(error)) from error
    if not isinstance(value, list):
        held = f"an object with the keys {', '.join(value)}" if isinstance(value, dict) else type(value).__name__
        raise UserError(f"{name} holds {held}, not a list of rows; write a JSON list, or JSONL with one object a line")
    yield from value


def _read_csv(path: Path, name: str) -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)  # the default ends at 128 KiB, which a long chat exceeds
    text = _decode(path.read_bytes(), name)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield {key: None if value in ("", "NaN", "nan") else value for key, value in row.items()}
    except csv.Error as error:
        line = reader.line_num + 1  # where the broken row begins; `line_num` is the end of the last whole one
        raise UserError(f"{name}, line {line}: not valid CSV ({error}); the file may be cut short") from error


def _read_parquet(path: Path, name: str) -> Iterator[Any]:
    if path.stat().st_size == 0:
        return
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: a text in it is not UTF-8; write the file again from UTF-8 texts") from error
    except pa.ArrowException as error:
        reason = _one_line(error)
        raise UserError(f"{name} is not a whole Parquet file ({reason}); it may be cut short") from error


READERS = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _decode(content: bytes, name: str, first_line: int = 1, offset: int = 0) -> str:
    """Return UTF-8 as text, less a byte order mark at the start of the file."""
    try:
        return content.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        position = f"line {line}, byte {offset + error.start}"
        raise UserError(f"{name}, {position}: not UTF-8; convert the file to UTF-8") from error


def _parse(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _invalid_json(name, line, error.msg) from error
    except (ValueError, RecursionError) as error:
        raise _invalid_json(name, line, _one_line(error)) from error


def _invalid_json(name: str, line: int, reason: str) -> UserError:
    return UserError(f"{name}, line {line}: not valid JSON ({reason}); the line may be cut short")


def read_jsonl(path: Path, name: str) -> list[Any]:
    """Return all values of a JSONL file; `name` is what error messages call it."""
    return list(_rows(path, name))


def _hub_source(settings: DataSettings) -> Source:
    path = str(settings.path)
    revision = resolve_revision(path, settings.revision)
    dataset = _load_hub_split(settings, path, revision)
    if len(dataset) == 0:
        raise UserError(f"the split {settings.split} of {path} is empty; set data.split to another")
    name = ":".join(part for part in (path, settings.subset, settings.split) if part)
    return Source(name, dataset, total=len(dataset), revision=revision)


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
        f"cannot reach the Hugging Face hub for {path} ({_one_line(error)}); "
        f"check the network, HF_ENDPOINT and proxy settings, then run again; {OFFLINE_WAYS}"
    )


def _refused(path: str, error: Exception) -> UserError:
    causes = (error, error.__cause__)  # a full disk while the cache is written comes wrapped
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return UserError(f"the disk is full while {path} is put into the cache; make room, or set HF_HOME elsewhere")
    return UserError(
        f"the Hugging Face hub did not give {path} ({_one_line(error)}); check data.path, data.subset, data.split "
        f"and data.revision, and for a private or gated dataset set HF_TOKEN; {OFFLINE_WAYS}"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
