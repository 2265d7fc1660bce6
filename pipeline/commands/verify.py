"""Makes an exported file again from what it says of itself, and compares the two; or checks who has signed it.

tunesmith verify models/gguf/starter-m-Q8_0.gguf
tunesmith verify models/gguf/starter-m-Q8_0.gguf --key them.pub
"""

import tempfile
from pathlib import Path

from common.errors import UserError
from common.files import sha256
from common.words import counted
from pipeline.core.paths import ADAPTER
from pipeline.core.records import FileLineage
from pipeline.models.lineage import weight_digests
from pipeline.provenance.bundles import Vouched, find, require_signed, require_signed_image
from pipeline.provenance.images import SCHEME
from pipeline.provenance.signing import read_public_key
from pipeline.verification.changes import changes
from pipeline.verification.differences import differences
from pipeline.verification.read import read_gguf, read_lineage_of, type_of
from pipeline.verification.rebuild import rebuild

SHOWN = 20  # differences that are listed


def run(path: Path, adapter: bool = False, against: Path | None = None) -> None:
    """Say where a file comes from, what has changed since, and whether it comes out the same again.

    Args:
        path: the file.
        adapter: export models/adapter again, without training.
        against: another file, to be compared in place of one that is made again.

    Raises:
        UserError: it comes out otherwise, or cannot be made again here; or one of the files is no GGUF.
    """
    if against is not None:
        if adapter:
            raise UserError("--against makes nothing again, so that --from adapter says nothing; leave one of them out")
        for one in (path, against):
            read_gguf(one)
        require_same(path, against, str(against))
        return
    file = read_gguf(path)
    lineage, kind = read_lineage_of(file, path), type_of(file, path)
    print_lineage(path, lineage, kind)
    bundle = find(path)
    print(f"  signed  {bundle}, not checked without --key" if bundle else "  unsigned")
    workspace = Path.cwd()
    print_list("other here than when it was made", changes(lineage, workspace))
    if adapter:
        require_same_adapter(lineage)
    with tempfile.TemporaryDirectory(prefix="tunesmith-verify-") as name:
        print("made again:")
        try:
            again = rebuild(lineage, kind, Path(name), workspace, ADAPTER.absolute() if adapter else None)
        except UserError as error:
            raise UserError(f"{path} cannot be made again here; {error}") from error
        require_same(path, again, "the one made again")


def check_signature(name: str, key: Path, bundle: Path | None = None) -> None:
    """Say what a key vouches for of a file, a folder or an image; nothing is made again, and nobody is asked.

    Raises:
        UserError: it is unsigned or another's, or has changed since.
    """
    public = read_public_key(key)
    if bundle is not None and not bundle.is_file():
        raise UserError(f"{bundle} is no file here")
    if name.startswith(SCHEME):
        found = require_signed_image(name.removeprefix(SCHEME), public, bundle)
    else:
        found = require_signed(Path(name), public, bundle)
    print_vouched(name, found)


def print_vouched(name: str, found: Vouched) -> None:
    """Print who has signed, what, and what it was made of; of libraries their number alone."""
    made = found.provenance.build_definition
    print(f"{name}: as {found.key[:16]} has signed it, {counted(len(found.files), 'file')}")
    for file, digest in found.files.items():
        print(f"  {file}: SHA-256 {digest}")
    print(f"made as {made.build_type}, its bill of materials has {counted(found.parts, 'part')}; of:")
    for resource in made.resolved_dependencies:
        if resource.annotations.get("kind") not in ("library", "platform"):
            digests = resource.digest or {"state": resource.annotations.get("state", "unknown")}
            known_by = " ".join(f"{kind} {digest}" for kind, digest in digests.items())
            print(f"  {resource.annotations.get('kind', 'part'):8} {resource.name} {known_by}")


def print_lineage(path: Path, lineage: FileLineage, kind: str) -> None:
    """Print what a file says of itself."""
    print(f"{path}: {lineage.of}, {kind}, SHA-256 {sha256(path)}")
    print(f"  base    {lineage.base.path}, digest {lineage.base.digest}")
    if lineage.data:
        rows = ", ".join(f"{name} {digest[:16]}" for name, digest in lineage.data.splits.items())
        print(f"  data    {lineage.data.settings.get('name')}: {rows}")
    if lineage.train and (start := lineage.train.get("start_adapter")):
        print(f"  start   {start}, SHA-256 {lineage.start_adapter}")
    for does, making in (("train", lineage.trained), ("export", lineage.exported)):
        if making:
            commit = (making.commit or "none")[:12] + (", changed" if making.uncommitted else "")
            print(f"  {does:7} commit {commit}, {making.machine}, {', '.join(map(' '.join, making.libraries.items()))}")


def print_list(title: str, lines: list[str]) -> None:
    """Print lines under a title, the first of them."""
    if lines:
        print(f"{title}:")
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more")


def require_same_adapter(lineage: FileLineage) -> None:
    """Refuse an adapter that a file was not made of.

    Raises:
        UserError: it is missing, or another one.
    """
    if lineage.adapter is None:
        raise UserError("--from adapter is for files of a tuned model, and this one is the base's; leave it out")
    here = weight_digests(ADAPTER)
    if here != lineage.adapter:
        other = ", ".join(
            sorted(name for name in {*here, *lineage.adapter} if here.get(name) != lineage.adapter.get(name))
        )
        raise UserError(
            f"{ADAPTER} is not what the file was made of: {other}; `dvc checkout {ADAPTER}` may bring it back"
        )


def require_same(path: Path, other: Path, name: str) -> None:
    """Say that two files are the same, or list in what they differ.

    Raises:
        UserError: they differ.
    """
    found = differences(path, other)
    if not found:
        print(f"the same to the byte: {sha256(other)}")
        return
    print_list(f"{path} -> {name}", found)
    raise UserError(f"{path} differs from {name} in {counted(len(found), 'place')}, first {found[0]}")
