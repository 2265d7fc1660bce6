"""What of this machine's disk a stage in a container sees: the same paths, so that what is written names them alike."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import constants

from common.errors import UserError
from common.package_index import cache_root
from pipeline.core.config import Config
from pipeline.core.paths import root
from pipeline.tracking.delivery import database_file, tracking_uri

OF_THE_IMAGE = tuple(map(Path, ("/bin", "/etc", "/home/tunesmith", "/lib", "/opt/venv", "/tmp", "/usr/bin")))  # noqa: S108
FILLED = ("data", "inputs", "models", "reports")  # folders of the repository in which DVC and compose leave links
HUB = {
    "HF_HOME": constants.HF_HOME,
    "HF_HUB_CACHE": constants.HF_HUB_CACHE,
    "HF_XET_CACHE": constants.HF_XET_CACHE,
}


def places(config: Config, out: Path) -> list[Path]:
    """Return what a stage reads and writes, none of it below another; folders that it writes are made where missing.

    Args:
        config: that it runs with.
        out: where its outputs go.

    Raises:
        UserError: one of them would hide what the image is made of.
    """
    repository = root().resolve()
    written = [repository / config.runtime.checkpoint_root, out, *map(Path, hub_caches().values())]
    for folder in [*written, packaged_models()]:
        folder.mkdir(parents=True, exist_ok=True)
    needed = [repository, Path.cwd(), *written, *git_folders(), *database_folders(config), *named(asdict(config))]
    links = [Path.cwd() / name for name in FILLED]
    needed += [target for link in [*repository.iterdir(), *below(links)] if (target := beyond(link, repository))]
    seen = outermost(path.resolve() for path in needed)
    for path in seen:
        if hidden := [own for own in OF_THE_IMAGE if own.is_relative_to(path)]:
            raise UserError(f"{path} would hide {hidden[0]} of the image from a stage; move what is named there")
    return seen


def hub_caches() -> dict[str, str]:
    """Return where the hub's libraries keep what they fetch, by the variables that say so."""
    datasets = os.environ.get("HF_DATASETS_CACHE")
    return {**HUB, **({"HF_DATASETS_CACHE": datasets} if datasets else {})}


def packaged_models() -> Path:
    """Return where models out of Python packages are kept."""
    return cache_root() / "models"


def git_folders() -> Iterator[Path]:
    """Yield where git keeps a worktree's history, which is another folder."""
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        yield Path(done.stdout.strip())


def database_folders(config: Config) -> Iterator[Path]:
    """Yield the folder of a database of runs that is a file."""
    path = database_file(tracking_uri(config.tracking))
    if config.tracking.enabled and path is not None:
        folder = path.absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def named(value: object) -> Iterator[Path]:
    """Yield what a configuration names by an absolute path and is there."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for entry in value:
            yield from named(entry)
    elif isinstance(value, str) and value.startswith("/") and Path(value).exists():
        yield Path(value)


def below(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield all that is in folders, without following links."""
    for folder in folders:
        for place, inner, files in os.walk(folder):
            yield from (Path(place, name) for name in (*inner, *files))


def beyond(link: Path, repository: Path) -> Path | None:
    """Return what a link out of the repository leads to; None for what is no such link."""
    if not link.is_symlink() or not link.exists() or link.resolve().is_relative_to(repository):
        return None
    return link.resolve()


def outermost(paths: Iterable[Path]) -> list[Path]:
    """Return paths without those that are below another one."""
    kept: list[Path] = []
    for path in sorted(set(paths)):  # a folder comes before what is in it
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
