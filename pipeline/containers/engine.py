"""The Docker engine, what it can do and the image that it has: each lack in one line, before anything starts."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.models.images import Image

from common.errors import MachineError, UserError
from pipeline.core.code import git
from pipeline.core.config import DockerSettings
from pipeline.workers.parent import IN_IMAGE

DOCKERFILE = Path("Dockerfile.train")
PATIENCE = 60  # seconds for an engine's answer; a container may take some to be made on a slow disk
ROOM_TO_BUILD = 20e9  # bytes; the image with CUDA's libraries takes 12 GB, and its layers are unpacked beside it
# What an engine says when it cannot hand GPUs on, and what to do about it.
NO_RUNTIME = (
    "install the NVIDIA container toolkit and restart the engine (nvidia-ctk runtime configure --runtime=docker), or "
    "set runtime.device=cpu"
)
REFUSALS = {
    "could not select device driver": f"the Docker engine has no runtime for GPUs; {NO_RUNTIME}",
    "unsatisfied condition: cuda": "the driver is too old for the image's CUDA; update it, or build on an older BASE",
    "nvidia-container-cli": f"NVIDIA's container toolkit fails; {NO_RUNTIME}",
}


class Info(TypedDict, total=False):
    """What is read of an engine's answer to `docker info`."""

    ServerVersion: str
    Runtimes: Mapping[str, object]
    DiscoveredDevices: list[Mapping[str, str]]  # by CDI, from version 28.3 on
    SecurityOptions: list[str]
    DockerRootDir: str
    OSType: str


def connect(
    reason_for_own: str = "stages read files of this one", otherwise: str = ", or set runtime=local"
) -> docker.DockerClient:
    """Return a client of the engine that DOCKER_HOST names, or this machine's.

    Args:
        reason_for_own: why another machine's will not do.
        otherwise: what else there is to do without one.

    Raises:
        MachineError: none answers, or it is another machine's, which has not this one's files.
    """
    host = os.environ.get("DOCKER_HOST") or ""
    if host and not host.startswith(("unix://", "npipe://")):
        raise MachineError(
            f"DOCKER_HOST is {host}, another machine's engine, and {reason_for_own}; unset it, or run there"
        )
    try:
        client = docker.from_env(timeout=PATIENCE)
        client.ping()
    except DockerException as error:
        raise MachineError(
            f"no Docker engine answers ({reason(error)}); start one (systemctl start docker) and be allowed to use it "
            f"(the group docker){otherwise}"
        ) from error
    return client


def reason(error: Exception) -> str:
    """Return why an engine refuses, in its own words and one line; of one that is not there, what the system says."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        return " ".join(str(explanation).split())
    known = re.search(r"Permission denied|No such file or directory|Connection refused|timed out", str(error))
    return known[0] if known else " ".join(str(error).split())


def info_of(engine: docker.DockerClient) -> Info:
    """Return what an engine says of itself."""
    answer: Info = engine.info()
    return answer


def is_rootless(info: Info) -> bool:
    """Return whether the engine runs as a user, for whom root in a container stands."""
    return "name=rootless" in _security(info)


def has_labels(info: Info) -> bool:
    """Return whether SELinux keeps containers from files that are not labelled for them."""
    return "name=selinux" in _security(info)


def _security(info: Info) -> set[str]:
    return {option.partition(",")[0] for option in info.get("SecurityOptions") or ()}


def hands_gpus_on(info: Info) -> bool:
    """Return whether an engine says that it can give GPUs to containers.

    One that does not say so may still: the toolkit without its configuration is enough for device requests.
    """
    devices = info.get("DiscoveredDevices") or ()
    by_cdi = any(device.get("ID", "").startswith("nvidia.com/") for device in devices)
    return "nvidia" in (info.get("Runtimes") or {}) or by_cdi


def refusal(error: APIError) -> MachineError:
    """Return an engine's refusal to start a container, with what to do where that is known."""
    said = reason(error)
    for words, remedy in REFUSALS.items():
        if words in said:
            return MachineError(f"{remedy} ({said})")
    return MachineError(f"the Docker engine does not start the container: {said}")


# the image


def image_of(engine: docker.DockerClient, settings: DockerSettings) -> Image:
    """Return the image that stages run in; it is built where that is asked for and it is not there.

    Raises:
        UserError: it is not there, cannot be built, or is no train image.
    """
    try:
        image = engine.images.get(settings.image)
    except ImageNotFound:
        if not settings.build:
            command = f"docker build -f {DOCKERFILE} -t {settings.image} ."
            raise UserError(
                f"no image {settings.image} here; build it ({command}), have it built by runtime.docker.build=true, or "
                "name another in runtime.docker.image"
            ) from None
        build(engine, settings)
        image = engine.images.get(settings.image)
    if IN_IMAGE not in variables(image):
        raise UserError(f"{settings.image} is not built by {DOCKERFILE}; name such an image in runtime.docker.image")
    return image


def build(engine: docker.DockerClient, settings: DockerSettings) -> None:
    """Build the train image from the repository by the docker command, since the SDK has no BuildKit.

    Raises:
        MachineError: the command is not here, the engine's disk is too small, or the base cannot be had.
        UserError: the build fails.
    """
    require_command("runtime.docker.build")
    place = Path(info_of(engine).get("DockerRootDir") or "/")
    if place.is_dir() and (free := shutil.disk_usage(place).free) < ROOM_TO_BUILD:
        raise MachineError(f"{free / 1e9:.0f} GB are free in {place}, and a build takes {ROOM_TO_BUILD / 1e9:.0f}")
    labels = [f"BASE_DIGEST={digest(base_of(engine, settings.build_args)).rpartition('@')[2]}", f"REVISION={commit()}"]
    given = [*labels, *settings.build_args]
    arguments = [part for argument in given for part in ("--build-arg", argument)]
    run_build(["--file", str(DOCKERFILE), "--tag", settings.image, *arguments, "."], f"the image {settings.image}")


def require_command(what: str) -> None:
    """Raise a `MachineError` where the docker command is not here, which `what` needs."""
    if not shutil.which("docker"):
        raise MachineError(f"{what} needs the docker command, which is not here; install it")


def run_build(arguments: Sequence[str], what: str) -> None:
    """Build an image with BuildKit, whose output goes where this process's does.

    Args:
        arguments: of `docker build`.
        what: is built, in words.

    Raises:
        UserError: the build fails.
    """
    command = ["docker", "build", *arguments]
    print(f"building {what}: {' '.join(command)}", flush=True)
    if status := subprocess.run(command, env={**os.environ, "DOCKER_BUILDKIT": "1"}).returncode:
        raise UserError(f"building {what} ended with status {status}; its output says why")


def commit() -> str:
    """Return the commit that an image is built from; nothing outside of a repository."""
    return git("rev-parse", "HEAD").strip()


def base_of(engine: docker.DockerClient, build_args: Sequence[str], dockerfile: Path = DOCKERFILE) -> Image:
    """Return the image that a build starts from: the one that is named, or the Dockerfile's.

    Raises:
        MachineError: it is not here, and cannot be fetched.
    """
    name = base_name(build_args, dockerfile)
    try:
        return engine.images.get(name)
    except ImageNotFound:
        print(f"fetching {name}", flush=True)
    try:
        return engine.images.pull(name)
    except DockerException as error:
        raise MachineError(f"the base {name} cannot be fetched ({reason(error)}); name another by BASE=…") from error


def base_name(build_args: Sequence[str], dockerfile: Path = DOCKERFILE) -> str:
    """Return what a build calls the image that it starts from."""
    lines = [*build_args, *dockerfile.read_text(encoding="utf-8").replace("ARG ", "").splitlines()]
    return next(line.removeprefix("BASE=") for line in lines if line.startswith("BASE="))


def variables(image: Image) -> dict[str, str]:
    """Return the environment that an image brings."""
    return dict(entry.split("=", 1) for entry in image.attrs["Config"].get("Env") or ())


def digest(image: Image) -> str:
    """Return by what an image can be had again: its digest in a registry, else that of its configuration."""
    known: list[str] = image.attrs.get("RepoDigests") or []
    return next(iter(known), str(image.id))
