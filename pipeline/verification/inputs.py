"""What a file was made from, found again by its digests: the code, the base, the data."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.errors import UserError
from common.files import sha256
from pipeline.core.code import ROOT, digests, last_commit
from pipeline.core.config import ModelSettings
from pipeline.core.records import DataOrigin, FileLineage, Making
from pipeline.models.loading import ADAPTER_WEIGHTS, base_digest


@dataclass
class Checkouts:
    """The states of the code that something was made by: this one, or clones of the repository in a folder."""

    folder: Path
    found: dict[str, Path] = field(default_factory=dict)  # by commit

    def of(self, making: Making) -> Path:
        """Return a folder with the code that `making` names.

        Raises:
            UserError: neither this code nor a commit of its repository is that code.
        """
        same = digests(ROOT) == making.code
        if same and making.commit == last_commit():
            return ROOT
        clone = self.clone(making.commit) if making.commit else None
        if clone and digests(clone) == making.code:
            return clone
        if same:
            return ROOT
        raise UserError(_other_code(making, clone))

    def clone(self, commit: str) -> Path | None:
        """Return a clone at a commit; None where this repository does not have it."""
        if commit not in self.found:
            place = self.folder / commit[:12]
            command = ["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(place)]
            for arguments in (command, ["git", "-C", str(place), "checkout", "--quiet", "--detach", commit]):
                if subprocess.run(arguments, capture_output=True).returncode:
                    return None
            self.found[commit] = place
        return self.found[commit]


def _other_code(making: Making, clone: Path | None) -> str:
    """Return why the code cannot be had."""
    if making.uncommitted:
        return f"code: {', '.join(making.uncommitted)} was never committed as it was when the file was made"
    if clone is None:
        differ = [place for place, digest in digests(ROOT).items() if making.code.get(place) != digest]
        return f"code: {', '.join(differ)} differs here, and commit {making.commit} is not in this repository"
    differ = [place for place, digest in digests(clone).items() if making.code.get(place) != digest]
    return f"code: {', '.join(differ)} of commit {making.commit} is not what the file names"


def find_base(lineage: FileLineage, roots: Sequence[Path]) -> dict[str, Path]:
    """Return where a base's folders and its template are, by their relative names in the settings.

    Args:
        lineage: of the file.
        roots: folders to look in, the first first.

    Raises:
        UserError: none has the base that the file names.
    """
    model = lineage.base.model
    found = _find_model(model, lineage.base.digest, roots)
    if model.merge_path:
        merged = replace(model, path=model.merge_path, revision=model.merge_revision)
        found |= _find_model(merged, lineage.merge_digest, roots)
    return found


def _find_model(model: ModelSettings, digest: str | None, roots: Sequence[Path]) -> dict[str, Path]:
    seen = []
    for root in roots:
        names = [name for name in (model.path, model.chat_template) if name and (root / name).exists()]
        placed = {name: str(root / name) for name in names}
        there = replace(
            model,
            path=placed.get(model.path, model.path),
            chat_template=placed.get(model.chat_template or "", model.chat_template),
        )
        found = base_digest(there)
        if digest in (None, found):
            return {name: Path(path) for name, path in placed.items() if not Path(name).is_absolute()}
        seen.append(found)
    raise UserError(f"base: {model.path} or its chat template has the digest {seen[0]} here, and had {digest}")


def find_data(data: DataOrigin, roots: Sequence[Path]) -> dict[str, Path]:
    """Return where data's files are, by their relative names in the settings.

    Args:
        data: that the file was made from.
        roots: folders to look in, the first first.

    Raises:
        UserError: some are missing or have changed; the message names them.
    """
    found, lost = {}, []
    for name, digest in data.files.items():
        there = [root / name for root in roots if (root / name).is_file()]
        same = next((path for path in there if sha256(path) == digest), None)
        if same is None:
            lost.append(f"{name} {'has changed' if there else 'is not here'}, it had the SHA-256 {digest[:16]}…")
        elif not Path(name).is_absolute():
            found[name] = same
    if lost:
        raise UserError(f"data: {'; '.join(lost)}")
    return found


def find_start(lineage: FileLineage, roots: Sequence[Path]) -> dict[str, Path]:
    """Return where the adapter is that training went on from, by its relative name in the settings; nothing of none.

    Args:
        lineage: of the file.
        roots: folders to look in, the first first.

    Raises:
        UserError: it is missing, or another one.
    """
    name = (lineage.train or {}).get("start_adapter")
    if not isinstance(name, str):
        return {}
    there = [root / name for root in roots if (root / name / ADAPTER_WEIGHTS).is_file()]
    digest = lineage.start_adapter
    same = next((folder for folder in there if digest in (None, sha256(folder / ADAPTER_WEIGHTS))), None)
    if same is None:
        had = f", it had the SHA-256 {digest[:16]}…" if digest else ""
        raise UserError(f"start adapter: {name} {'is another one' if there else 'is not here'}{had}")
    return {} if Path(name).is_absolute() else {name: same}
