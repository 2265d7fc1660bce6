"""Where models come from: each source that SERVE_MODELS lists, as GGUF files on this machine.

    models/gguf                           a folder, searched with those below it
    hf://owner/name@revision              a repository of the Hub, at a commit or a tag: its *.gguf
    hf://owner/name@revision/*Q8_0.gguf   one file of it, or those of a pattern
    models:/name@alias, models:/name/3    a version in MLflow's registry: its *.gguf

Two of them move: an alias, and a folder that is a symbolic link or lies below one. What is found is found where they
lead at that moment, and stays there when they are moved on; `leads_to` says where they lead now.

What has to be fetched lies in a cache afterwards, where a file has its name only once it is whole. Models are named so
that a name is short and stays what it is: by the path below the folder, `name/file` for the Hub, `name@alias/file` and
`name/3/file` for MLflow.
"""

import errno
import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from common.errors import UserError
from common.files import unwritable
from serve.models.files import ModelFile, join_parts

if TYPE_CHECKING:  # seconds to import
    from mlflow import MlflowClient

HUB, REGISTRY = "hf://", "models:/"
HUB_REFERENCE = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)@(?P<revision>[^/@]+)(/(?P<pattern>.+))?")
REGISTRY_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")
NOWHERE = "nothing"  # which is no version's number
FIRST_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")
SQLITE = "sqlite:///"
LOCAL_REGISTRY = Path("mlflow.db")  # where the pipeline keeps it, unless MLFLOW_TRACKING_URI says otherwise
# MLflow's default of 7 would mean four minutes of silence while its server is away; 3 take 15 seconds.
REGISTRY_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
TALKATIVE = ("urllib3.connectionpool", "mlflow.store.db.utils")  # tracebacks of what our one line says


def find_files(sources: str) -> Iterator[ModelFile]:
    """Yield the GGUF files of sources separated by commas, fetched where they are not here yet; of a split model one.

    Raises UserError for a source that is written wrongly, cannot be had or has no such file.
    """
    for source in listed(sources):
        if source.startswith(HUB):
            yield from join_parts(_of_hub(source))
        elif source.startswith(REGISTRY):
            yield from join_parts(_of_registry(source))
        elif "://" in source:
            raise UserError(f"SERVE_MODELS: {source} is no folder, hf://owner/name@revision or models:/name@alias")
        else:
            yield from join_parts(_of_folder(source))


def listed(sources: str) -> list[str]:
    """Return the sources that SERVE_MODELS has, one by one."""
    return [source for source in map(str.strip, sources.split(",")) if source]


def leads_to(source: str, may_lack: bool = False) -> str:
    """Return where a source leads now: an alias's version, a folder's real path; nothing where it never moves.

    NOWHERE for an alias that is not set, where it `may_lack`.

    Raises UserError for an alias that cannot be looked up.
    """
    if source.startswith(REGISTRY):
        reference = _registry_reference(source)
        if reference["version"]:
            return ""
        with _in_one_line(source):
            client = _registry_client(source)
            if may_lack and reference["alias"] not in client.get_registered_model(reference["name"]).aliases:
                return NOWHERE
            return _version(client, reference)
    return "" if "://" in source else os.path.realpath(source)


def _of_folder(source: str) -> Iterator[ModelFile]:
    """Yield those below a folder, by name. Files and folders with a dot in front are passed over.

    They are still being written.
    """
    folder = Path(source)
    moves = any(path.is_symlink() for path in (folder, *folder.parents))
    place = Path(os.path.realpath(folder)) if moves else folder
    below = sorted(path.relative_to(place) for path in place.rglob("*.gguf") if path.is_file())
    paths = [path for path in below if not any(part.startswith(".") for part in path.parts)]
    if not paths:
        raise UserError(
            f"no *.gguf file in {folder}: run `tunesmith repro` to make one, or set SERVE_MODELS to a folder"
        )
    for path in paths:
        yield ModelFile(path.with_suffix("").as_posix(), place / path, source=source, moves=moves)


def _of_hub(source: str) -> Iterator[ModelFile]:
    """Yield those of a repository of the Hub, in HF_HOME's cache."""
    repository, revision, pattern = hub_reference(source)
    snapshot = _fetch_snapshot(source, repository, revision, pattern)
    below = sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf"))
    paths = [path for path in below if fnmatch(path, pattern)]
    if not paths:
        raise UserError(f"{source}: the repository has no GGUF file named {pattern} at this revision")
    for path in paths:
        name = f"{repository.partition('/')[2]}/{path.removesuffix('.gguf')}"
        yield ModelFile(name, snapshot / path, snapshot.name, source=source)


def hub_reference(source: str) -> tuple[str, str, str]:
    """Return the repository, the revision and the files' pattern that a source of the Hub names.

    Raises UserError for one that is written wrongly.
    """
    reference = HUB_REFERENCE.fullmatch(source)
    if not reference or reference["revision"] == "main":
        raise UserError(
            f"SERVE_MODELS: {source} must be hf://owner/name@revision, with a commit or a tag as the revision:"
            " a model that changes under its name could not be told from the one before"
        )
    pattern = FIRST_PART.sub(r"-*-of-\1.gguf", reference["pattern"] or "*.gguf")  # who names it wants all of them
    return reference["repository"], reference["revision"], pattern


def _fetch_snapshot(source: str, repository: str, revision: str, pattern: str) -> Path:
    """Return the folder with the files of a commit, named as the commit is."""
    import httpx
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():  # a log would have a line for each per cent
        disable_progress_bars()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=pattern))
    except errors.GatedRepoError:
        reason = "its owner asks you to accept terms first: do so on its page, and set HF_TOKEN to a token of yours"
    except errors.RepositoryNotFoundError:
        reason = "the Hub has no such repository, or it is private and HF_TOKEN does not open it"
    except errors.RevisionNotFoundError:
        reason = "the repository has no such revision"
    except (errors.LocalEntryNotFoundError, httpx.ConnectError, httpx.TimeoutException):
        reason = "the Hub is out of reach and the cache below HF_HOME does not have all of it: try again later"
    except (OSError, httpx.HTTPError, ValueError, RuntimeError) as error:
        reason = _reason(error, "HF_HOME")
    raise UserError(f"{source}: {reason}")


def _of_registry(source: str) -> Iterator[ModelFile]:
    """Yield those of a model version in MLflow's registry: where they lie if that is here, else in a cache."""
    reference = _registry_reference(source)
    with _in_one_line(source):
        version, files = _model_version(source, reference)
    if not files:
        raise UserError(f"{source}: version {version} has no *.gguf among its artifacts")
    for path, file in files:
        name = f"{source.removeprefix(REGISTRY)}/{path.removesuffix('.gguf')}"
        yield ModelFile(name, file, version, source=source, moves=reference["alias"] is not None)


def _registry_reference(source: str) -> re.Match[str]:
    reference = REGISTRY_REFERENCE.fullmatch(source)
    if not reference:
        raise UserError(f"SERVE_MODELS: {source} must be models:/name@alias or models:/name/version")
    return reference


@contextmanager
def _in_one_line(source: str) -> Iterator[None]:
    """Raise UserError for whatever MLflow raises within."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{source}: {error.name} is not installed: `pip install mlflow`, or leave it out") from None
    except Exception as error:  # each of its stores brings errors of its own
        raise UserError(f"{source}: {_reason(error, 'XDG_CACHE_HOME')}") from None


def _registry_client(source: str) -> "MlflowClient":
    import mlflow

    for name, value in REGISTRY_SETTINGS.items():
        os.environ.setdefault(name, value)
    for logger in TALKATIVE:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{LOCAL_REGISTRY.resolve()}"
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():  # MLflow would make an empty one
        raise UserError(f"{source}: no {uri.removeprefix(SQLITE)} is here: set MLFLOW_TRACKING_URI to the registry")
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient()


def _version(client: "MlflowClient", reference: re.Match[str]) -> str:
    """Return the number of the version that is meant."""
    return str(reference["version"] or client.get_model_version_by_alias(reference["name"], reference["alias"]).version)


def _model_version(source: str, reference: re.Match[str]) -> tuple[str, list[tuple[str, Path]]]:
    """Return the version that is meant, and its GGUF files by their paths there."""
    client, name = _registry_client(source), reference["name"]
    version = _version(client, reference)
    location = client.get_model_version_download_uri(name, version)
    files = [
        (info.path, _artifact(f"models:/{name}/{version}", info, location)) for info in _artifacts_of(name, version)
    ]
    return version, sorted(files)


def _artifacts_of(name: str, version: str, folder: str = "") -> Iterator[Any]:
    """Yield MLflow's descriptions of a version's GGUF files."""
    import mlflow.artifacts

    for info in mlflow.artifacts.list_artifacts(artifact_uri=f"models:/{name}/{version}/{folder}".rstrip("/")):
        if info.is_dir:
            yield from _artifacts_of(name, version, info.path)
        elif info.path.endswith(".gguf"):
            yield info


def _artifact(model: str, info: Any, location: str) -> Path:
    """Return a file of a model version on this machine.

    Versions do not change, so what has been fetched once is right.
    """
    import mlflow.artifacts

    url = urlparse(location)
    if url.scheme in ("", "file"):
        return Path(unquote(url.path)) / info.path
    path = _cache(location) / info.path
    if path.exists() and info.file_size in (None, path.stat().st_size):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{model}/{info.path}", dst_path=folder))
        if info.file_size not in (None, fetched.stat().st_size):  # not every store says it
            raise UserError(f"{model}: {info.path} was cut off on its way: start again")
        fetched.replace(path)
    return path


def _cache(location: str) -> Path:
    """Return where the artifacts of one place are kept.

    By its address, since another registry may have the same names.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    registry = f"{os.environ.get('MLFLOW_TRACKING_URI')} {location}"
    return Path(root, "tunesmith", "models", hashlib.sha256(registry.encode()).hexdigest()[:16])


def _reason(error: Exception, cache: str) -> str:
    """Return one line; for a file that cannot be written, with the variable that moves the cache."""
    if isinstance(error, OSError) and error.filename:
        place, why = error.filename, error.strerror
    elif why := unwritable(error):  # in which MLflow and the Hub name no file
        place = "the cache"
    else:
        return str(error).strip().partition("\n")[0] or type(error).__name__
    way_out = "make room, or " if why == os.strerror(errno.ENOSPC) else ""
    return f"cannot write {place} ({why}): {way_out}set {cache} to a folder that can be written"
