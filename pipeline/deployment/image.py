"""An image with the server and a model inside: built, asked a question, and tagged when it has answered."""

import io
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.containers import Container
from docker.models.images import Image

from common.errors import MachineError, UserError
from pipeline.containers.engine import base_name, base_of, digest, reason, run_build
from pipeline.core.code import ROOT
from pipeline.deployment import bundle
from pipeline.deployment.model import LocalModel
from pipeline.deployment.question import ask, wait_until_ready

PORT = "7860/tcp"
READY = 300.0  # seconds until the server has its model in memory
BILLS = "app/sbom"
LINES = 5  # of a container's last words
OCI, OWN = "org.opencontainers.image", "tunesmith"  # of labels, what their names begin with
CODE_LICENCE = "Apache-2.0"
SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT"}  # of the Hub's identifiers those that are SPDX's, too


def labels(model: LocalModel, name: str, version: str, base: tuple[str, str]) -> dict[str, str]:
    """Return what an image says of itself.

    Args:
        model: that is inside.
        name: the image's.
        version: the tag.
        base: what it stands on, by its name and its digest.
    """
    lineage = model.lineage
    data = lineage.data.splits if lineage and lineage.data else {}
    said = {
        f"{OCI}.title": name,
        f"{OCI}.version": version,
        f"{OCI}.description": f"A chat with {model.files[0].name}, over OpenAI's API and on a page",
        f"{OCI}.revision": bundle.code_commit(),
        f"{OCI}.licenses": " AND ".join(dict.fromkeys((CODE_LICENCE, spdx(model.licence)))),
        f"{OCI}.base.name": base[0],
        f"{OCI}.base.digest": base[1],
        f"{OWN}.model": ", ".join(file.name for file in model.files),
        f"{OWN}.model.sha256": ", ".join(model.digests),
        f"{OWN}.model.licence": model.licence or "not recorded",
        f"{OWN}.model.base": lineage.base.path if lineage else None,
        f"{OWN}.model.revision": lineage.exported.commit if lineage else None,
        f"{OWN}.data": ", ".join(f"{split}={known}" for split, known in sorted(data.items())),
    }
    return {key: value for key, value in said.items() if value}


def spdx(licence: str | None) -> str:
    """Return a licence as SPDX names it, or as a reference to one that it does not list."""
    return SPDX.get(licence or "", f"LicenseRef-{licence or 'not-recorded'}")


def built(engine: docker.DockerClient, model: LocalModel, said: Mapping[str, str], build_args: Sequence[str]) -> Image:
    """Return the image, which has no tag yet.

    Args:
        engine: that keeps it.
        model: that goes inside.
        said: its labels.
        build_args: of the Dockerfile, NAME=VALUE each.

    Raises:
        UserError: the build fails.
    """
    with tempfile.TemporaryDirectory(
        prefix=".image-", suffix=".tmp", dir=ROOT
    ) as name:  # on the repository's disk, for links
        context, known_by = Path(name) / "context", Path(name) / "id"
        context.mkdir()
        bundle.write_image_context(context, {})
        bundle.put_wheels(context)
        bundle.put_model(context, model.files, model.card)
        bundle.open_to_all(context)
        arguments = [part for key, value in said.items() for part in ("--label", f"{key}={value}")]
        arguments += [part for argument in build_args for part in ("--build-arg", argument)]
        run_build(["--iidfile", str(known_by), *arguments, str(context)], said[f"{OCI}.title"])
        return engine.images.get(known_by.read_text().strip())


def with_bills(engine: docker.DockerClient, image: Image, model: LocalModel) -> Image:
    """Return an image with bills of materials in a layer of their own: of all that is below, and of the model.

    Raises:
        UserError: the engine refuses.
    """
    content = bills(str(image.id), model)
    try:
        container = engine.containers.create(image.id)
        try:
            container.put_archive("/", as_tar(content))
            return container.commit()
        finally:
            container.remove(v=True)
    except APIError as error:
        raise MachineError(f"the Docker engine does not take the bill of materials: {reason(error)}") from error


def bills(image: str, model: LocalModel) -> dict[str, str]:
    """Return bills of materials in CycloneDX's JSON, by where they stand in an image.

    A model has one where it says where it comes from.
    """
    from pipeline.provenance.sbom import sbom_of_image, sbom_of_model

    of_model = {f"{BILLS}/model.cdx.json": sbom_of_model(model.files[0])} if model.lineage else {}
    return {f"{BILLS}/image.cdx.json": sbom_of_image(image), **of_model}


def as_tar(texts: Mapping[str, str]) -> bytes:
    """Return texts as an archive of files that everybody may read; of no time, so that the same gives the same."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, text in texts.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content := text.encode())
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def base(engine: docker.DockerClient, build_args: Sequence[str]) -> tuple[str, str]:
    """Return the name and the digest of the image that it stands on, which is fetched where it is not here."""
    dockerfile = ROOT / bundle.DOCKERFILE
    found = base_of(engine, build_args, dockerfile)
    return base_name(build_args, dockerfile), digest(found).rpartition("@")[2]


def answer_of(engine: docker.DockerClient, image: Image) -> str:
    """Start an image as a host does that trusts it with nothing, and return what it says to a question.

    Raises:
        UserError: it does not start, or does not answer; its last words are in the line.
    """
    with started(engine, image) as container:

        def check_alive() -> None:
            container.reload()
            if container.status == "exited":
                raise UserError(f"the image ends instead of answering: {last_words(container)}")

        url = f"http://{':'.join(published(container))}"
        wait_until_ready(url, {}, READY, check_alive)
        return ask(url, {})


@contextmanager
def started(engine: docker.DockerClient, image: Image) -> Iterator[Container]:
    """Yield a container of an image: read-only, without rights, seen by this machine alone; removed at the end."""
    try:
        container = engine.containers.run(
            image.id,
            detach=True,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            environment={"SERVE_FEEDBACK": "off"},
            ports={PORT: ("127.0.0.1", None)},
        )
    except DockerException as error:
        raise MachineError(f"the Docker engine does not start the image: {reason(error)}") from error
    try:
        yield container
    finally:
        with suppress(APIError):
            container.remove(force=True, v=True)


def published(container: Container) -> tuple[str, str]:
    """Return the address and the port of this machine that a container answers on."""
    container.reload()
    place = (container.ports.get(PORT) or [None])[0]
    if not place:
        raise UserError(f"the image ends instead of answering: {last_words(container)}")
    return place["HostIp"], place["HostPort"]


def last_words(container: Container) -> str:
    """Return the last lines that a container has printed, in one."""
    return "; ".join(container.logs(tail=LINES).decode(errors="replace").split("\n")).strip("; ") or "without a word"


def discard(engine: docker.DockerClient, image: Image) -> None:
    """Remove an image that nothing else names; what is built in its layers stays in the cache."""
    with suppress(ImageNotFound, APIError):
        image.reload()
        if not image.tags:
            engine.images.remove(image.id)
