"""Signs what was made: the files of models/gguf, models/adapter, images.

tunesmith keygen ~/.config/tunesmith/signing
TUNESMITH_SIGNING_KEY=~/.config/tunesmith/signing.key tunesmith sign
"""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from common.errors import UserError
from common.files import sha256
from pipeline.core.paths import ADAPTER, GGUF, MANIFEST
from pipeline.core.records import Manifest
from pipeline.provenance.bundles import sign, sign_image
from pipeline.provenance.images import SCHEME
from pipeline.provenance.sbom import sbom_of_environment, sbom_of_image, sbom_of_model
from pipeline.provenance.signing import OWN, make_key_pair, own_signer


def make_keys(path: Path) -> None:
    """Make a key pair and say what it is for.

    Raises:
        UserError: one of the two is there.
        MachineError: they cannot be written.
    """
    private, public = make_key_pair(path)
    print(f"{private}: signs, by `export {OWN}={private.absolute()}`; whoever has it can sign in your name")
    print(f"{public}: for everybody who is to check what you sign, by `tunesmith verify FILE --key {public.name}`")


def run(names: Sequence[str] = (), key: Path | None = None) -> None:
    """Sign files, folders and images.

    Args:
        names: of them; without any, all that the workspace's training has made.
        key: the private one, else the environment's.

    Raises:
        UserError: there is no key, or something does not say where it comes from, or is not what export has checked.
    """
    signer = own_signer(key)
    if signer is None:
        raise UserError(f"there is no key to sign with; `tunesmith keygen NAME` makes one, and {OWN} or --key names it")
    for name in names or [str(path) for path in made_here()]:
        print(f"{name}: signed by {signer.public_key.keyid[:16]}, {sign_one(name, signer)}")


def sign_one(name: str, signer: CryptoSigner) -> Path:
    """Sign one of them, and return where its bundle is."""
    if name.startswith(SCHEME):
        return sign_image(name.removeprefix(SCHEME), signer)
    return sign(Path(name), signer)


def made_here() -> list[Path]:
    """Return the workspace's GGUF files, as export has checked them, and its adapter.

    Raises:
        UserError: there are none, or others.
    """
    manifest = Manifest.read(GGUF / MANIFEST)
    for file in manifest.files:
        path = GGUF / file.file
        if not path.is_file() or sha256(path) != file.sha256:
            raise UserError(f"{path} is not the file that was checked ({MANIFEST}); run `dvc repro export`")
    if sha256(ADAPTER) != manifest.adapter:
        raise UserError(f"{ADAPTER} is not what {GGUF} was made of; run `dvc checkout {ADAPTER}`, or `dvc repro`")
    return [*(GGUF / file.file for file in manifest.files), ADAPTER]


def bill(name: str | None) -> str:
    """Return the bill of materials of a file, a folder or an image; of this environment, where none is named.

    Raises:
        UserError: it is not there, or does not say what it is made of.
    """
    if name is None:
        return sbom_of_environment()
    return sbom_of_image(name.removeprefix(SCHEME)) if name.startswith(SCHEME) else sbom_of_model(Path(name))
