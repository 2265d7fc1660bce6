"""Which model is deployed: GGUF files of this machine, or a revision of a repository on the Hub."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from huggingface_hub import HfApi

from common.errors import UserError
from common.files import sha256
from llama.header import Header
from pipeline.core.paths import CARD
from pipeline.core.records import FileLineage
from pipeline.gguf.lineage_key import LINEAGE_KEY
from pipeline.publishing.hub import told
from pipeline.publishing.licences import terms_of_base
from serve.models.files import PART, ModelFile, join_parts, read_whole
from serve.models.sources import HUB, find_files, hub_reference


@dataclass(frozen=True)
class HubModel:
    """Files of a repository on the Hub, which whoever serves them fetches."""

    repository: str
    commit: str
    pattern: str  # of their names
    size: int  # bytes
    is_closed: bool  # private, or gated: its files want a token

    @property
    def source(self) -> str:
        """What SERVE_MODELS names it by."""
        return f"{HUB}{self.repository}@{self.commit}/{self.pattern}"


@dataclass(frozen=True)
class LocalModel:
    """Files of this machine, which go with the server."""

    files: tuple[Path, ...]
    header: Header  # of the first
    card: Path | None  # what was measured of them, where it stands beside them

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)

    @cached_property
    def digests(self) -> list[str]:
        """The SHA-256 of each file."""
        return [*map(sha256, self.files)]

    @cached_property
    def lineage(self) -> FileLineage | None:
        """Where it comes from; None where the file does not say.

        Raises:
            UserError: what it says is another version's, or damaged.
        """
        text = self.header.keys.get(LINEAGE_KEY)
        return None if text is None else FileLineage.parse_text(str(text), f"{LINEAGE_KEY} in {self.files[0]}")

    @property
    def licence(self) -> str | None:
        """Its base's, by the Hub's identifier; what the file says itself goes before. None where nobody knows."""
        own = self.header.keys.get("general.license")
        if own:
            return str(own)
        terms = terms_of_base(self.lineage.base.path) if self.lineage else None
        return terms.identifier if terms else None


def on_hub(model: str) -> HubModel:
    """Return what `hf://OWNER/NAME@REVISION[/PATTERN]` names, at the commit that the revision is now.

    Raises:
        UserError: it is written wrongly, the Hub does not have it, or no GGUF file is in it.
    """
    repository, revision, pattern = hub_reference(model)
    with told(repository):
        found = HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = [file for file in found.siblings or [] if file.rfilename.endswith(".gguf")]
    named = [file for file in files if fnmatch(file.rfilename, pattern)]
    if not named or not found.sha:
        there = ", ".join(file.rfilename for file in files[:5]) or "none at all"
        raise UserError(f"{model} has no GGUF file named {pattern}; {repository} has {there}")
    return HubModel(
        repository, found.sha, pattern, sum(file.size or 0 for file in named), bool(found.private or found.gated)
    )


def on_this_machine(model: str) -> LocalModel:
    """Return what a file, a folder, or a source of SERVE_MODELS names; what is elsewhere is fetched.

    Raises:
        UserError: nothing is there, or no whole GGUF.
    """
    found = _of_file(Path(model)) if model.endswith(".gguf") and "://" not in model else [*find_files(model)]
    if not found:
        raise UserError("--model names nothing; give a GGUF file, a folder of them, hf://… or models:/…")
    headers = [read_whole(file) for file in found]
    files = tuple(path for file in found for path in file.parts or (file.path,))
    if len({path.name for path in files}) < len(files):
        raise UserError(f"{model} has files of one name in several folders; name the one that is to be served")
    return LocalModel(files, headers[0], _card_beside(files))


def _of_file(path: Path) -> list[ModelFile]:
    """Return a file; of one part of a model, all of them."""
    if not path.is_file():
        raise UserError(f"{path} is no file here; `tunesmith repro` makes models/gguf, or name another")
    paths = [other for other in sorted(path.parent.glob("*.gguf")) if _whole(other) == _whole(path)]
    return join_parts(ModelFile(other.stem, other) for other in paths)


def _whole(path: Path) -> tuple[str, str]:
    """Return by what the parts of a model are known to be one's; a file that is no part is its own."""
    part = PART.fullmatch(path.stem)
    return (part["stem"], part["count"]) if part else (path.stem, "")


def _card_beside(files: Sequence[Path]) -> Path | None:
    """Return the card of files, which the server looks for beside them and in the folder above."""
    places = (files[0].parent / CARD.name, files[0].parent.parent / CARD.name)
    return next((place for place in places if place.is_file()), None)
