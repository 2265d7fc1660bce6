"""A GGUF file as the artifact that Docker Model Runner and `llama-server --docker-repo` pull.

The layout is that of docker/model-spec, as docker/model-runner writes it (`docker model package`) and reads it: an OCI
image manifest whose configuration describes the model, and whose layers are the files as they are. llama-server takes
the first layer of a GGUF, so a model is one file. Nothing in it is of the clock or of this machine: a file has the same
digest wherever it is packed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from common.errors import UserError
from llama.header import Header
from llama.model import quantization
from pipeline.deployment.model import LocalModel
from pipeline.deployment.oci_registry import Blob
from serve.models.kinds import is_adapter

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.docker.ai.model.config.v0.1+json"
GGUF_TYPE = "application/vnd.docker.ai.gguf.v3"
LICENCE_TYPE = "application/vnd.docker.ai.license"
FILE_NAME = "org.cncf.model.filepath"  # by which docker/model-runner names a layer's file
TITLE = "org.opencontainers.image.title"  # by which oras does
DECIMAL, BINARY = ("", "K", "M", "B", "T"), ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Artifact:
    """What is pushed: the blobs, and the manifest that names them."""

    blobs: tuple[Blob, ...]
    manifest: bytes

    @property
    def digest(self) -> str:
        """By which it can be pulled again."""
        return digest_of(self.manifest)


def packed(model: LocalModel, licences: Sequence[Path] = ()) -> Artifact:
    """Return a model as an artifact, with the texts of licences.

    Raises:
        UserError: it is more than one file, or none that answers by itself, or a text cannot be read.
    """
    weights = weights_of(model)
    texts = [held(LICENCE_TYPE, text_of(path)) for path in licences]
    layers = (weights, *texts)
    config = held(CONFIG_TYPE, as_json(described(model.header, layers)))
    names = (model.files[0].name, *(path.name for path in licences))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(config),
        "layers": [
            descriptor(layer) | {"annotations": {FILE_NAME: name, TITLE: name}}
            for layer, name in zip(layers, names, strict=True)
        ],
        "annotations": annotations(model),
    }
    return Artifact((*layers, config), as_json(manifest))


def weights_of(model: LocalModel) -> Blob:
    """Return the one file of a model.

    Raises:
        UserError: it is not one, or an adapter.
    """
    file = model.files[0]
    if len(model.files) > 1:
        named = f"{file} and {len(model.files) - 1} more"
        raise UserError(f"an artifact is one file, and {named} are named; name one, parts joined by llama-gguf-split")
    if is_adapter(model.header):
        raise UserError(f"{file} is an adapter, which cannot answer; name a file that has the base in it")
    return Blob(GGUF_TYPE, f"sha256:{model.digests[0]}", file.stat().st_size, file)


def described(header: Header, layers: Sequence[Blob]) -> dict[str, object]:
    """Return the configuration: what Model Runner lists of a model, and for how many tokens it makes room."""
    keys = header.keys
    config: dict[str, object] = {
        "format": "gguf",
        "quantization": quantization({key: str(value) for key, value in keys.items()}) or "unknown",
        "parameters": scaled(sum(prod(tensor.shape) for tensor in header.tensors.values()), 1000, DECIMAL),
        "architecture": header.architecture,
        "size": scaled(layers[0].size, 1024, BINARY),
        "gguf": {key: as_text(value) for key, value in keys.items()},
    }
    if context := header.whole(f"{header.architecture}.context_length"):
        config["context_size"] = context
    files = {"type": "rootfs", "diff_ids": [layer.digest for layer in layers]}
    return {"config": config, "descriptor": {}, "rootfs": files}


def annotations(model: LocalModel) -> dict[str, str]:
    """Return what registries show of an artifact, as far as the file knows it."""
    lineage = model.lineage
    known = {
        TITLE: model.files[0].stem,
        "org.opencontainers.image.licenses": model.licence,
        "org.opencontainers.image.revision": lineage and lineage.exported.commit,
        "org.opencontainers.image.base.name": lineage and lineage.base.path,
    }
    return {key: str(value) for key, value in known.items() if value}


def scaled(number: int, step: int, units: Sequence[str]) -> str:
    """Return a number in the unit that fits it, as 1.24B or 253.62MiB."""
    amount, power = float(number), 0
    while amount >= step and power < len(units) - 1:
        amount, power = amount / step, power + 1
    return f"{amount:.2f}".rstrip("0").rstrip(".") + units[power]


def digest_of(content: bytes) -> str:
    """Return by what a registry knows a content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def held(media_type: str, content: bytes) -> Blob:
    """Return a blob of what is in memory."""
    return Blob(media_type, digest_of(content), len(content), content)


def descriptor(blob: Blob) -> dict[str, object]:
    """Return how a manifest names a blob."""
    return {"mediaType": blob.media_type, "size": blob.size, "digest": blob.digest}


def as_json(content: Mapping[str, object]) -> bytes:
    """Return JSON of no more bytes than it takes, the same for the same content."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def as_text(value: object) -> str:
    """Return a value of a header as Go's formats write it, in which others' artifacts have theirs."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:f}" if isinstance(value, float) else str(value)


def text_of(path: Path) -> bytes:
    """Return the text of a licence.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a licence's text by --licence") from error
