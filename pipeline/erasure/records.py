"""The records themselves: in the server's folder, in a dataset on the hub, in this machine's caches of it."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

from common.errors import UserError
from common.files import sha256
from common.words import counted
from pipeline.data.hub import OF_FEEDBACK, hub_errors
from pipeline.erasure.outcome import Outcome
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.sources import Kept
from serve.feedback.forgetting import forget, without
from serve.feedback.push import LOCK, PUSHED, alone

SHORTEST = 8  # digits by which a visitor may be named


def find_visitor(beginning: str, places: list[Kept], manifests: list[LearnManifest]) -> str:
    """Return the visitor whose number begins so.

    Raises:
        UserError: it is too short, or of several; or of nobody, unless it is whole.
    """
    if len(beginning) < SHORTEST or not beginning.isalnum():
        raise UserError(f"--visitor is {beginning!r}: give the number that the page shows, or {SHORTEST} digits of it")
    said = {_visitor(line) for kept in places for path in kept.files for line in path.read_bytes().splitlines()}
    said |= {used.visitor for manifest in manifests for used in manifest.records.values()}
    found = sorted(one for one in said if one and one.startswith(beginning))
    if len(found) > 1:
        raise UserError(f"{len(found)} visitors have a number that begins with {beginning}: give all of it")
    if not found and len(beginning) < 32:
        raise UserError(f"no visitor has a number that begins with {beginning}; whole, it is taken as it is")
    return found[0] if found else beginning


def files_with(visitor: str, places: list[Kept]) -> list[str]:
    """Return the digests of the files that have the visitor's records."""
    return [sha256(path) for kept in places for path in kept.files if visitor.encode() in path.read_bytes()]


def forget_in_folder(folder: Path, visitor: str, outcome: Outcome) -> None:
    """Delete the records of the server's folder. Raises UserError when the disk does not take it."""
    try:
        gone = forget(folder, visitor)
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; make room or grant access there") from None
    if gone:
        outcome.deleted.append(f"{folder}: {counted(len(gone), 'record')}")


def pushed_to(folder: Path) -> str | None:
    """Return the dataset that a server pushes a folder to, if it does."""
    try:
        return str(json.loads((folder / PUSHED).read_bytes())["repository"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def forget_on_hub(folder: Path, repository: str, kept: Kept, visitor: str, outcome: Outcome) -> None:
    """Commit the dataset's files without the records, while no server on this machine pushes.

    Raises:
        UserError: the hub does not take it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    for path in kept.files:
        content = path.read_bytes()
        left = without(content, visitor)[0]
        if left != content:
            operations.append(CommitOperationAdd(path.name, left) if left else CommitOperationDelete(path.name))
    if operations:
        with alone(folder / LOCK) if folder.is_dir() else nullcontext(), hub_errors(repository, OF_FEEDBACK):
            HfApi().create_commit(repository, operations, commit_message="Feedback", repo_type="dataset")
        outcome.deleted.append(f"{repository} on the hub: {counted(len(operations), 'file')} written anew")
    outcome.beyond.append(
        f"the history of {repository} on the hub, whose earlier commits keep what was pushed: squash it "
        "(huggingface_hub's super_squash_history), or delete the dataset and let the server push it anew"
    )
    _forget_caches(repository, outcome)


def _forget_caches(repository: str, outcome: Outcome) -> None:
    """Delete what this machine has downloaded of a dataset: its files, and rows made of them."""
    import datasets
    from huggingface_hub import constants

    owner, _, name = repository.partition("/")
    for cache in (
        Path(constants.HF_HUB_CACHE) / f"datasets--{owner}--{name}",
        Path(datasets.config.HF_DATASETS_CACHE) / f"{owner}___{name}",
    ):
        if cache.exists():
            shutil.rmtree(cache)
            outcome.deleted.append(f"{cache}")


def _visitor(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["visit"]["visitor"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
