"""Keys of one's own, and statements signed by them: DSSE envelopes, one a line (in-toto's bundle).

The keys are PEM files as OpenSSL reads them. Those made here are Ed25519's: the same content has the same signature.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from common.errors import MachineError, UserError
from pipeline.core.records import first_fault
from pipeline.provenance.statement import Statement

OWN = "TUNESMITH_SIGNING_KEY"  # in the environment: the path of the private key by which all is signed
PAYLOAD = "application/vnd.in-toto+json"
OTHERS = 0o077  # permissions of everybody but the owner


def make_key_pair(path: Path) -> tuple[Path, Path]:
    """Make `path`.key, which its owner alone may read, and `path`.pub.

    Raises:
        UserError: one of them is there.
        MachineError: they cannot be written.
    """
    private, public = (path.with_name(f"{path.name}.{ending}") for ending in ("key", "pub"))
    for file in (private, public):
        if os.path.lexists(file):
            raise UserError(f"{file} is there already, and keys are never overwritten; name another")
    signer = CryptoSigner.generate_ed25519()
    public_key = load_pem_private_key(signer.private_bytes, None).public_key()
    shown = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(private, signer.private_bytes, 0o600)
        _write_new(public, shown, 0o644)
    except FileExistsError as error:
        raise UserError(f"{error.filename} is there already, and keys are never overwritten; name another") from error
    except OSError as error:
        raise MachineError(f"cannot write {error.filename}: {error.strerror}; name another place") from error
    return private, public


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there, with its permissions from the first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def own_signer(path: Path | None = None) -> CryptoSigner | None:
    """Return what signs with a private key, else with the one that the environment names; None of none.

    Raises:
        UserError: that key cannot be used.
    """
    named = os.environ.get(OWN)
    chosen = path or (Path(named) if named else None)
    return read_private_key(chosen) if chosen else None


def read_private_key(path: Path) -> CryptoSigner:
    """Return what signs with a private key.

    Raises:
        UserError: it is missing, others may read it, or it is no private key that can be used.
    """
    content = _read(path)
    if path.stat().st_mode & OTHERS:
        raise UserError(f"{path} may be read by others than its owner; `chmod 600 {path}`")
    try:
        return CryptoSigner(load_pem_private_key(content, None))
    except TypeError as error:
        raise UserError(f"{path} asks for a passphrase; `openssl pkey` writes it without one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} is no private key in PEM that signs here; `tunesmith keygen` makes one") from error


def read_public_key(path: Path) -> SSlibKey:
    """Return a public key.

    Raises:
        UserError: it is missing, or no public key that can be used.
    """
    content = _read(path)
    if b"PRIVATE KEY" in content:
        raise UserError(f"{path} is a private key; name the public one, which lies beside it as .pub")
    try:
        return SSlibKey.from_crypto(load_pem_public_key(content))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path} is no public key in PEM that signatures can be checked with") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the key {path}: {error.strerror}") from error


def signed(statements: Sequence[Statement], signer: CryptoSigner) -> str:
    """Return the statements as a bundle: a line each, with its signature."""
    lines = []
    for statement in statements:
        envelope = Envelope(statement.text().encode(), PAYLOAD, {})
        envelope.sign(signer)
        lines.append(as_line(envelope))
    return "".join(lines)


def as_line(envelope: Envelope) -> str:
    """Return an envelope as a bundle has it."""
    return json.dumps(envelope.to_dict(), sort_keys=True) + "\n"


def checked(bundle: Path, key: SSlibKey) -> list[Statement]:
    """Return the statements of a bundle, each of which the key has signed, and nothing that it has not.

    Raises:
        UserError: a line is another's, or not as it was signed.
    """
    lines = bundle.read_bytes().decode(errors="replace").splitlines(keepends=True)
    return [_checked(line, f"{bundle}, line {number}", key) for number, line in enumerate(lines, 1)]


def _checked(line: str, place: str, key: SSlibKey) -> Statement:
    try:
        envelope = Envelope.from_dict(json.loads(line))
        if as_line(envelope) != line or envelope.payload_type != PAYLOAD:
            raise ValueError("written otherwise")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place} is damaged: it is no signed statement as `tunesmith sign` writes them") from error
    if key.keyid not in envelope.signatures:
        others = ", ".join(name[:16] for name in envelope.signatures) or "nobody"
        raise UserError(f"{place} is signed by {others}, and the key that is asked for is {key.keyid[:16]}")
    try:
        envelope.verify([key], 1)
    except VerificationError as error:
        raise UserError(f"{place} is not what {key.keyid[:16]} has signed: it was changed, or forged") from error
    try:
        return Statement.model_validate_json(envelope.payload)
    except ValidationError as error:
        raise UserError(f"{place} is signed, and no statement that is known here: {first_fault(error)}") from error
