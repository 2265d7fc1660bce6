"""Images of the Docker engine as artifacts: their layers, read whole, and what their labels say."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import IO

import docker
from docker.errors import DockerException, ImageNotFound
from docker.models.images import Image

from common.errors import UserError
from pipeline.containers.engine import connect, reason
from pipeline.provenance.artifacts import Artifact, Material

SCHEME = "docker:"  # before an image's name, where a path might stand
LABEL = "org.opencontainers.image"
CHUNK = 2**20  # bytes read at once


def read_image(name: str) -> Artifact:
    """Return what an image is, and says of itself.

    Args:
        name: its name or digest.

    Raises:
        UserError: the engine has none of that name, or cannot read it any more.
        MachineError: no engine answers.
    """
    with closing(connect()) as engine:
        image = image_here(engine, name)
        files = {"image": str(_hex(image.id)), **layers(image)}
    labels = dict(sorted((image.labels or {}).items()))
    base, commit = labels.get(f"{LABEL}.base.name"), labels.get(f"{LABEL}.revision")
    materials = (
        *([Material("code", "tunesmith", commit)] if commit else ()),
        *([Material("image", base, sha256=_hex(labels.get(f"{LABEL}.base.digest")))] if base else ()),
    )
    return Artifact(name, "image", files, materials, {"labels": labels})


def image_here(engine: docker.DockerClient, name: str) -> Image:
    """Return an image that the engine has; none is fetched.

    Raises:
        UserError: it has none of that name.
    """
    try:
        return engine.images.get(name)
    except ImageNotFound:
        raise UserError(f"the Docker engine has no image {name}; build it or load it") from None


def layers(image: Image) -> dict[str, str]:
    """Return the SHA-256 of each layer by its number, of what the engine hands out: its own notes are not believed.

    Raises:
        UserError: the engine finds that its files are not those that it made the image of.
    """
    found: dict[str, str] = {}
    order: list[str] = []
    try:
        with tarfile.open(fileobj=io.BufferedReader(Stream(image.save()), CHUNK), mode="r|") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isfile() else None
                if content is None:
                    continue
                if entry.name == "manifest.json":
                    order = json.load(content)[0]["Layers"]
                else:
                    found[entry.name] = digest(content)
        return {f"layer {number}": found[name] for number, name in enumerate(order, 1)}
    except (DockerException, tarfile.TarError, OSError, LookupError, ValueError) as error:
        raise UserError(f"the Docker engine cannot read {image.id} whole: {reason(error)}; build it anew") from error


def digest(content: IO[bytes]) -> str:
    """Return the SHA-256 of a layer, unpacked where it is packed."""
    is_packed = isinstance(content, io.BufferedReader) and content.peek(2)[:2] == b"\x1f\x8b"
    found, layer = hashlib.sha256(), gzip.GzipFile(fileobj=content) if is_packed else content
    while chunk := layer.read(CHUNK):
        found.update(chunk)
    return found.hexdigest()


class Stream(io.RawIOBase):
    """What an engine sends piece by piece, as a file that is read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer is Python 3.12's
        """Fill a buffer as far as the next piece goes; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _hex(digest: str | None) -> str | None:
    """Return a digest without its algorithm; None of none."""
    return digest.rpartition(":")[2] if digest else None
