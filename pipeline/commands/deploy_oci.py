"""Puts a model into a registry of container images, from which Docker Model Runner and llama-server pull it.

    tunesmith deploy oci --tag ghcr.io/OWNER/chat:1 --model models/gguf/starter-m-Q8_0.gguf

The file is sent once: what the registry has already is left there, and an upload that breaks off goes on. The tag comes
last, so that it leads to the whole model or to the one before. Docker's own login is used (`docker login`), or
REGISTRY_USERNAME and REGISTRY_PASSWORD.
"""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from pipeline.deployment.model import on_this_machine
from pipeline.deployment.oci_artifact import MANIFEST_TYPE, Artifact, packed
from pipeline.deployment.oci_registry import HUB, Reference, Registry, reached


def run(tag: str, model: str, licences: Sequence[Path] = (), plain: bool = False) -> None:
    """Push a model as an OCI artifact, and read back what the tag leads to.

    Args:
        tag: [REGISTRY/]OWNER/NAME[:TAG]; Docker Hub's where no registry is named.
        model: FILE.gguf, or where one comes from.
        licences: texts that go with it.
        plain: reach the registry without TLS, as it is done on this machine anyway.

    Raises:
        UserError: there is no such model, or the registry is out of reach, refuses, or has something else in the end.
    """
    reference = Reference.parse(tag)
    artifact = packed(on_this_machine(model), licences)
    try:
        with reached(reference, plain) as registry:
            push(artifact, registry)
            check(artifact, registry, reference)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the tag is as it was; the same command sends what is not there yet") from None
    print(f"published {reference} {artifact.digest}")
    name = f"{reference.repository}:{reference.tag}" if reference.registry == HUB else str(reference)
    print(f"to chat with it: docker model run {name}")
    if reference.registry == HUB:
        print(f"             or: llama-server --docker-repo {name}")


def push(artifact: Artifact, registry: Registry) -> None:
    """Send what is not there yet, then give it the tag."""
    for blob in artifact.blobs:
        sent = registry.send(blob)
        print(f"{blob.digest[:19]} {blob.size / 1e6:,.1f} MB {'sent' if sent else 'is there already'}", flush=True)
    registry.name(artifact.manifest, MANIFEST_TYPE)


def check(artifact: Artifact, registry: Registry, reference: Reference) -> None:
    """Raise a `UserError` where the tag leads to anything but what was sent."""
    if registry.manifest(MANIFEST_TYPE) != artifact.manifest:
        raise UserError(f"{reference} leads to something else than was sent; did somebody push there meanwhile?")
