"""Signed bundles: where they lie, how an artifact gets its own, and how it is held against it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from common.errors import UserError
from common.files import write_text
from pipeline.core.paths import ADAPTER, GGUF, SIGNATURES
from pipeline.core.records import first_fault
from pipeline.provenance.artifacts import BUNDLE, Artifact, files_of, of_their_own, read_artifact
from pipeline.provenance.images import SCHEME, read_image
from pipeline.provenance.sbom import sbom_of_artifact, sbom_of_image
from pipeline.provenance.signing import checked, signed
from pipeline.provenance.statement import BILL, PROVENANCE, Provenance, statements

SHOWN = 3  # files that are named


@dataclass(frozen=True)
class Vouched:
    """What a key vouches for of an artifact."""

    key: str
    files: dict[str, str]  # SHA-256 by name
    provenance: Provenance
    parts: int  # of the bill of materials


def sign(path: Path, signer: CryptoSigner) -> Path:
    """Write the bundle of a GGUF file or an adapter's folder, in the place of an earlier one; return where.

    Raises:
        UserError: it does not say where it comes from.
        MachineError: the bundle cannot be written.
    """
    artifact = read_artifact(path)
    return _write(artifact, sbom_of_artifact(artifact), place_of(path), signer)


def sign_image(name: str, signer: CryptoSigner) -> Path:
    """Do the same for an image of the Docker engine.

    Raises:
        UserError: there is none of that name, or no Python in it.
        MachineError: no engine answers, or the bundle cannot be written.
    """
    return _write(read_image(name), sbom_of_image(name), place_of_image(name), signer)


def _write(artifact: Artifact, bill: str, bundle: Path, signer: CryptoSigner) -> Path:
    write_text(bundle, signed(statements(artifact, bill), signer))
    return bundle


def place_of(path: Path) -> Path:
    """Return where an artifact's bundle is written: beside it, but DVC's folders are left as they are."""
    whole = path.absolute()
    is_kept = whole == ADAPTER.absolute() or whole.parent == GGUF.absolute()
    return (SIGNATURES if is_kept else path.parent) / f"{whole.name}{BUNDLE}"


def place_of_image(name: str) -> Path:
    """Return where an image's bundle is."""
    return SIGNATURES / f"{name.replace('/', '_').replace(':', '_')}{BUNDLE}"


def find(path: Path) -> Path | None:
    """Return the bundle of a file or folder: beside it, or where `place_of` has it; None where it is unsigned."""
    whole = path.absolute()
    folders = (whole.parent, whole.parent / SIGNATURES.name, whole.parent.parent / SIGNATURES.name)
    return next((found for place in folders if (found := place / f"{whole.name}{BUNDLE}").is_file()), None)


def require_signed(path: Path, key: SSlibKey, bundle: Path | None = None) -> Vouched:
    """Return what a key vouches for of a file or folder, which is as it was signed.

    Args:
        path: of the file or folder; of those in it that have bundles of their own, each is held against that.
        key: that must have signed.
        bundle: of it, where it is not beside.

    Raises:
        UserError: it is missing or unsigned, the key has not signed it, or a file has changed.
    """
    if not path.exists():
        raise UserError(f"{path} is not here")
    bundle = bundle or find(path)
    if bundle is None:
        raise UserError(f"{path} is unsigned: there is no {path.absolute().name}{BUNDLE} beside it")
    found = vouched(bundle, key)
    require_same(str(path), files_of(path), found.files)
    for part in of_their_own(path):
        require_signed(part, key)
    return found


def require_signed_image(name: str, key: SSlibKey, bundle: Path | None = None) -> Vouched:
    """Do the same for an image of the Docker engine.

    Raises:
        UserError: as `require_signed`.
        MachineError: no engine answers.
    """
    here = read_image(name).files
    bundle = bundle or place_of_image(name)
    if not bundle.is_file():
        raise UserError(f"{SCHEME}{name} is unsigned: there is no {bundle}")
    found = vouched(bundle, key)
    require_same(f"{SCHEME}{name}", here, found.files)
    return found


def vouched(bundle: Path, key: SSlibKey) -> Vouched:
    """Return what a bundle says, all of which the key has signed.

    Raises:
        UserError: it cannot be read, another has signed it, or it is not one provenance and one bill of the same files.
    """
    found = checked(bundle, key)
    by_kind = {statement.predicate_type: statement for statement in found}
    if len(found) != 2 or by_kind.keys() != {PROVENANCE, BILL}:
        raise UserError(f"{bundle} does not have one provenance and one bill of materials; `tunesmith sign` makes both")
    made, holds = by_kind[PROVENANCE], by_kind[BILL]
    if made.subject != holds.subject:
        raise UserError(f"{bundle} has a provenance and a bill of materials of different files; sign again")
    try:
        provenance = Provenance.model_validate(made.predicate)
    except ValidationError as error:
        raise UserError(f"{bundle} is signed, and has no provenance as it should be: {first_fault(error)}") from error
    components = holds.predicate.get("components")
    return Vouched(key.keyid, made.files, provenance, len(components) if isinstance(components, list) else 0)


def require_same(name: str, here: Mapping[str, str], were: Mapping[str, str]) -> None:
    """Refuse files that are not those that were signed.

    Raises:
        UserError: some have changed, are missing, or were never signed; the message names them.
    """
    faults = [f"{file} {fault}" for file in sorted({*here, *were}) if (fault := _fault(here.get(file), were.get(file)))]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise UserError(f"{name} is not what was signed: {'; '.join(faults[:SHOWN])}{more}")


def _fault(here: str | None, was: str | None) -> str:
    """Return what is wrong with a file, by its SHA-256 now and then; nothing of nothing."""
    if was is None:
        return "was never signed"
    if here is None:
        return f"is missing, it had the SHA-256 {was[:16]}…"
    return "" if here == was else f"has changed: its SHA-256 is {here[:16]}…, and was {was[:16]}…"
