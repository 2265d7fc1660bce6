"""Datasets of the Hugging Face hub: at one commit, kept in its cache or streamed, split by split."""

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.data.batches import whole_columns
from pipeline.data.lines import BadLine, Row, Rows, one_line
from pipeline.data.readers import read_file

if TYPE_CHECKING:  # it takes a second
    from datasets import Dataset, DatasetBuilder, IterableDataset

HUB_TIMEOUT_S = 30
BATCH = 1024  # rows
FEEDBACK_FILES = "feedback-*.jsonl"  # as serve/feedback calls its files
# Of `datasets`: RuntimeError of a set that is a script, ImportError of one that needs a library for images or sound.
REFUSALS = (OSError, ValueError, RuntimeError, ImportError, pa.ArrowException)


class Ways(NamedTuple):
    """What there is to do about a dataset that cannot be had, by who asks for it."""

    check: str  # what may be wrong
    unset: str  # HF_HUB_OFFLINE, or do otherwise
    offline: str  # what needs no hub


OF_DATA = Ways(
    check="data.path, data.subset, data.split and data.revision",
    unset="unset it, or set data.revision to a commit that is in the cache",
    offline="data=starter and data=local work offline",
)
OF_FEEDBACK = Ways(check="its name", unset="unset it", offline="a folder of feedback needs no hub")


class HubSplit(NamedTuple):
    """A split by the hub's name of it, and its rows, read anew as often as asked for."""

    name: str
    rows: Iterable[Row | BadLine]
    total: int | None  # the number of rows, where it is known before reading
    revision: str  # the commit


def load_splits(settings: DataSettings) -> list[HubSplit]:
    """Return the splits that are asked for.

    Raises:
        UserError: the hub does not give them, or one is empty.
    """
    path = str(settings.path)
    revision = resolve_revision(path, settings.revision)
    with hub_errors(path):
        if files := _cached_feedback(path, revision):
            return [_feedback_split(settings, path, revision, files)]
        builder = _builder(settings, path, revision)
        if is_feedback(builder):
            return [_feedback_split(settings, path, revision, feedback_files(path, revision))]
        splits = _load(settings, builder)
    return [_hub_split(name, dataset, path, revision) for name, dataset in splits.items()]


def _hub_split(name: str, dataset: "Dataset | IterableDataset", path: str, revision: str) -> HubSplit:
    total = getattr(dataset, "num_rows", None)  # of what is streamed nobody knows
    if total == 0:
        raise UserError(f"the split {name} of {path} is empty; set data.split to others")
    return HubSplit(name, SplitRows(dataset, path), total, revision)


def is_feedback(builder: "DatasetBuilder") -> bool:
    """Return whether a dataset is what a server pushes feedback to.

    What records have differs from one to the next, which `datasets` refuses as no table.
    """
    names = [name for names in (builder.config.data_files or {}).values() for name in names]
    return bool(names) and all(fnmatch(Path(name).name, FEEDBACK_FILES) for name in names)


def feedback_files(path: str, revision: str) -> list[Path]:
    """Return the files of a dataset that a server pushes feedback to, at a commit, in the hub's cache.

    For use within `hub_errors`.
    """
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        path, repo_type="dataset", revision=revision, allow_patterns=FEEDBACK_FILES, etag_timeout=HUB_TIMEOUT_S
    )
    return sorted(Path(folder).glob(FEEDBACK_FILES))


def _cached_feedback(path: str, revision: str) -> list[Path]:
    """Return the same under HF_HUB_OFFLINE, where `datasets` knows only what it has made a table of."""
    from huggingface_hub import is_offline_mode
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    with suppress(LocalEntryNotFoundError, OfflineModeIsEnabled):
        return feedback_files(path, revision) if is_offline_mode() else []
    return []


def _feedback_split(settings: DataSettings, path: str, revision: str, files: list[Path]) -> HubSplit:
    asked = [settings.split] if isinstance(settings.split, str) else settings.split
    if asked is not None and asked != ["train"]:
        raise UserError(f"{path} has feedback, in no splits of its own; set data.split to train, and not {asked}")
    return HubSplit("train", FeedbackRows(files, path), None, revision)


@dataclass(frozen=True)
class FeedbackRows:
    """The rows of files of feedback, numbered through."""

    files: list[Path]
    path: str

    def __iter__(self) -> Rows:
        with hub_errors(self.path):
            for number, row in enumerate(chain.from_iterable(map(read_file, self.files)), start=1):
                yield row._replace(line=number)


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split; an error of the network ends in one line.

    The floats of a column that has whole numbers alone are integers. Where rows are streamed, each whole float is one,
    since nobody knows what is to come.
    """

    dataset: "Dataset | IterableDataset"
    path: str

    def __iter__(self) -> Rows:
        with hub_errors(self.path):
            whole = _whole_columns(self.dataset)
            for number, row in enumerate(self.dataset, start=1):
                whole_in_row = row.keys() if whole is None else whole
                yield Row(number, row | {name: _as_int(row[name]) for name in whole_in_row})


def _whole_columns(dataset: "Dataset | IterableDataset") -> list[str] | None:
    """Return the columns whose numbers are whole; None where rows are streamed."""
    if not hasattr(dataset, "num_rows"):
        return None
    floats = [name for name, kind in dataset.features.items() if getattr(kind, "dtype", "").startswith("float")]
    columns = dataset.select_columns(floats).with_format("arrow")
    return whole_columns(columns.iter(batch_size=BATCH), floats) if floats else []


def _as_int(value: object) -> object:
    """Return a whole number as an integer, and nothing for NaN."""
    if not isinstance(value, float) or (value == value and not value.is_integer()):
        return value
    return int(value) if value == value else None


def resolve_revision(path: str, revision: str | None, ways: Ways = OF_DATA) -> str:
    """Return the commit that a branch, a tag or the default branch of a hub dataset stands at now, asked of the hub.

    A full commit is taken as it is, so that a pinned dataset loads from the cache under HF_HUB_OFFLINE.

    Raises:
        UserError: the hub does not tell, with the ways out of that.
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
            f"{ways.unset}; {ways.offline}"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise _refused(path, error, ways) from error
    except (httpx.HTTPError, OSError) as error:
        raise _unreachable(path, error, ways) from error
    if commit is None:
        raise UserError(f"the hub names no commit for {path}; set data.revision to one")
    return commit


def _builder(settings: DataSettings, path: str, revision: str) -> "DatasetBuilder":
    """Return what loads a dataset at `revision`.

    The first step of `datasets.load_dataset`, with the builder's commit checked.
    """
    import datasets

    builder = datasets.load_dataset_builder(path, name=settings.subset, revision=revision)
    # Where a revision is out of reach, `datasets` takes the latest one in its cache and only logs it.
    if builder.hash != revision:
        raise UserError(
            f"{path} at {revision} cannot be had, and the cache holds another revision; check the network, "
            f"HF_HUB_OFFLINE and data.revision; {OF_DATA.offline}"
        )
    return builder


def _load(settings: DataSettings, builder: "DatasetBuilder") -> "dict[str, Dataset | IterableDataset]":
    """Return the splits that are asked for, by their names: the other steps of `datasets.load_dataset`."""
    asked = [settings.split] if isinstance(settings.split, str) else settings.split
    if settings.streaming:
        get = builder.as_streaming_dataset
    else:
        builder.download_and_prepare()
        get = builder.as_dataset
    return dict(get()) if asked is None else {split: get(split=split) for split in asked}


@contextmanager
def hub_errors(path: str, ways: Ways = OF_DATA) -> Iterator[None]:
    """Say in one line what the hub, the network or the disk has against reading a dataset, and what to do."""
    import datasets
    import httpx

    try:
        yield
    except (ConnectionError, httpx.TransportError) as error:
        raise _unreachable(path, error, ways) from error
    except (httpx.HTTPError, datasets.exceptions.DatasetsError, *REFUSALS) as error:
        raise _refused(path, error, ways) from error


def _unreachable(path: str, error: Exception, ways: Ways) -> UserError:
    return UserError(
        f"cannot reach the Hugging Face hub for {path} ({one_line(error)}); "
        f"check the network, HF_ENDPOINT and proxy settings, then run again; {ways.offline}"
    )


def _refused(path: str, error: Exception, ways: Ways) -> UserError:
    causes = (error, error.__cause__)  # a full disk while the cache is written comes wrapped
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return UserError(f"the disk is full while {path} is put into the cache; make room, or set HF_HOME elsewhere")
    return UserError(
        f"the Hugging Face hub did not give {path} ({one_line(error)}); check {ways.check}, "
        f"and for a private or gated dataset set HF_TOKEN; {ways.offline}"
    )
