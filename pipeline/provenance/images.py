"""Images of the Docker engine as artifacts: their layers, and what their labels say."""

from docker.errors import ImageNotFound
from docker.models.images import Image

from common.errors import UserError
from pipeline.containers.engine import connect
from pipeline.provenance.artifacts import Artifact, Material

SCHEME = "docker:"  # before an image's name, where a path might stand
LABEL = "org.opencontainers.image"


def read_image(name: str) -> Artifact:
    """Return what an image says of itself.

    Args:
        name: its name or digest.

    Raises:
        UserError: the engine has none of that name.
        MachineError: no engine answers.
    """
    with connect() as engine:
        try:
            image = engine.images.get(name)
        except ImageNotFound:
            raise UserError(f"the Docker engine has no image {name}; build it or load it") from None
    labels = {key: value for key, value in sorted((image.labels or {}).items())}
    base = labels.get(f"{LABEL}.base.name")
    materials = (
        *([Material("code", "tunesmith", labels[f"{LABEL}.revision"])] if labels.get(f"{LABEL}.revision") else ()),
        *([Material("image", base, sha256=_hex(labels.get(f"{LABEL}.base.digest")))] if base else ()),
    )
    return Artifact(name, "image", layers(image), materials, {"labels": labels})


def layers(image: Image) -> dict[str, str]:
    """Return the digests of an image and of each layer, as the engine has checked them."""
    listed = image.attrs["RootFS"]["Layers"]
    found = {"image": image.id, **{f"layer {number}": digest for number, digest in enumerate(listed, 1)}}
    return {name: _hex(digest) or "" for name, digest in found.items()}


def _hex(digest: str | None) -> str | None:
    """Return a digest without its algorithm; None of none."""
    return digest.rpartition(":")[2] if digest else None
