"""The files that the server keeps feedback in: a folder's, or a dataset's on the hub."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.files import sha256
from pipeline.core.config import LearnSettings
from pipeline.data.hub import FEEDBACK_FILES, OF_FEEDBACK, feedback_files, hub_errors, resolve_revision
from pipeline.data.lines import KEPT, BadLine, Row, one_line


class NothingToLearn(UserError):
    """Nobody said anything yet, or nothing that can be learnt."""


@dataclass(frozen=True)
class Kept:
    """Files of records."""

    name: str  # the folder, or the dataset at its commit
    files: list[Path]

    def rows(self) -> Iterator[tuple[str, Row | BadLine]]:
        """Yield the rows of all files, each with the file's name: as they are now, whoever adds to them meanwhile.

        Raises:
            UserError: a file cannot be read.
        """
        for path in self.files:
            try:
                lines = path.read_bytes().splitlines()
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from error
            for number, line in enumerate(lines, 1):
                yield path.name, _row(number, line)

    def digests(self) -> dict[str, str]:
        """Return the digest of each file."""
        return {path.name: sha256(path) for path in self.files}


def _row(number: int, line: bytes) -> Row | BadLine:
    try:
        return Row(number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return BadLine(number, one_line(error), line[:KEPT].decode(errors="replace"))


def kept_by(settings: LearnSettings) -> Kept | None:
    """Return the files that the settings name; None where they name none. Raises UserError as the next two."""
    if settings.dataset is not None:
        return of_dataset(settings.dataset)
    return None if settings.folder is None else of_folder(Path(settings.folder))


def of_folder(folder: Path) -> Kept:
    """Return a folder's files. Raises UserError where there are none."""
    if not (files := sorted(folder.glob(FEEDBACK_FILES))):
        raise NothingToLearn(f"no {FEEDBACK_FILES} in {folder}: name the folder that the server keeps feedback in")
    return Kept(str(folder), files)


def of_dataset(repository: str) -> Kept:
    """Return the files of a dataset on the hub, at its latest commit, in the hub's cache.

    Raises:
        UserError: the hub does not give it, or it has none.
    """
    commit = resolve_revision(repository, None, OF_FEEDBACK)
    with hub_errors(repository, OF_FEEDBACK):
        files = feedback_files(repository, commit)
    if not files:
        raise NothingToLearn(
            f"{repository} has no {FEEDBACK_FILES}: name the dataset that SERVE_FEEDBACK_REPO pushes to"
        )
    return Kept(f"{repository}@{commit}", files)
