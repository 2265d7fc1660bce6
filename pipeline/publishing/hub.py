"""A repository on the Hub, a model's or a Space's: what is there, and the one commit that puts something there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, SpaceInfo
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from common.errors import UserError
from pipeline.core.paths import MANIFEST

README = "README.md"
NEW = {".gitattributes", README}  # what a repository has that somebody has just made
PAID, BUSY = 402, 429

Found: TypeAlias = ModelInfo | SpaceInfo


@dataclass(frozen=True)
class RepositoryFile:
    """A file here, and what the repository's manifest says of it."""

    source: Path
    entry: dict[str, Any]  # "file" is its path there

    @property
    def path(self) -> str:
        """Where it stands in the repository."""
        path: str = self.entry["file"]
        return path


def check_name(repository: str, what: str = "the repository") -> None:
    """Raise a `UserError` for a name that no repository can have."""
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if repository.count("/") != 1:
        raise UserError(f"{what} must be named OWNER/NAME, of letters, digits, '-', '_' and '.'")


def open_repository(repository: str, private: bool) -> ModelInfo:
    """Return the repository as it is, made where there is none.

    Raises:
        UserError: it is for others to see than was asked for.
    """
    api = HfApi()
    try:
        found = api.model_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=private, exist_ok=True)
        found = api.model_info(repository)
    check_visibility(found, private)
    return found


def check_visibility(found: Found, private: bool) -> None:
    """Raise a `UserError` for a repository that is for others to see than was asked for."""
    if found.private != private:
        is_now, remedy = ("private", "leave --public out") if found.private else ("public", "add --public")
        raise UserError(f"{found.id} is {is_now}; {remedy}, or change that in its settings on the Hub")


def earlier_files(found: Found, force: bool) -> set[str]:
    """Return what was published there before, by its manifest.

    Raises:
        UserError: there is something, and it is not from here.
    """
    there = {sibling.rfilename for sibling in found.siblings or []}
    ours: set[str] = set()
    if MANIFEST in there:
        kept = HfApi().hf_hub_download(found.id, MANIFEST, revision=found.sha, repo_type=kind_of(found))
        text = Path(kept).read_text(encoding="utf-8")
        with suppress(ValueError, KeyError, TypeError):  # somebody else's manifest.json
            ours = {file["file"] for file in json.loads(text)["files"]}
    others = sorted(there - NEW - ours - {MANIFEST})
    if others and not ours and not force:
        raise UserError(f"{found.id} holds something else ({', '.join(others[:3])}); name another, or add --force")
    return ours & there


def send(found: Found, files: list[RepositoryFile], texts: dict[str, str], earlier: set[str], title: str) -> CommitInfo:
    """Return one commit that puts files and texts in the place of earlier ones; what is large is sent before it.

    Raises:
        UserError: a file has changed on its way.
    """
    api = HfApi()
    additions = [CommitOperationAdd(file.path, file.source) for file in files]
    api.preupload_lfs_files(found.id, additions, repo_type=kind_of(found), free_memory=False)
    for file, addition in zip(files, additions, strict=True):
        if addition.upload_info.sha256.hex() != file.entry["sha256"]:
            raise UserError(f"{file.source} changed while it was sent; nothing is published")
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *additions,
        *(CommitOperationAdd(path, text.encode()) for path, text in texts.items()),
        *(CommitOperationDelete(path) for path in sorted(earlier - {file.path for file in files})),
    ]
    kind, parent = kind_of(found), found.sha
    return api.create_commit(found.id, operations, commit_message=title, repo_type=kind, parent_commit=parent)


def kind_of(found: Found) -> str:
    """Return what the Hub calls a repository of this kind."""
    return "space" if isinstance(found, SpaceInfo) else "model"


@contextmanager
def told(repository: str) -> Iterator[None]:
    """Make one line of what the Hub, the network or the upload's threads raise."""
    try:
        yield
    except (HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
        reason = one_line(cause)
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        if status == PAID:
            raise UserError(f"the Hub makes {repository} for a paid plan alone ({reason})") from error
        if status == BUSY:
            raise UserError(f"the Hub asks to wait ({reason}); the same command goes on where it stopped") from error
        if status in (401, 403, 404):
            raise UserError(f"the Hub refuses {repository} ({reason}); may HF_TOKEN write there?") from error
        if status in (409, 412):
            raise UserError(f"{repository} was changed while this was sent ({reason}); run again") from error
        again = "the same command goes on where it stopped"
        raise UserError(f"{repository} did not get it all and is as it was ({reason}); {again}") from error


def one_line(error: BaseException) -> str:
    """Return what an error says, of the Hub's answers with their status."""
    text = str(error)
    if isinstance(error, HfHubHTTPError):  # whose own text has many lines
        text = ": ".join(filter(None, [f"HTTP {error.response.status_code}", error.server_message]))
    return " ".join(text.split())[:200] or type(error).__name__
