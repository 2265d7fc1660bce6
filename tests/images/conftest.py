"""The engine and the images that these tests share."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException

ROOT = Path(__file__).parents[2]
CPU_BUILD = "--build-arg BASE=debian:bookworm-slim --build-arg TORCH=cpu"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        pytest.skip(f"no Docker engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient) -> None:
    """Both images, tagged `test`; what is unchanged comes from the engine's cache."""
    kinds = (f"TRAIN_ARGS={CPU_BUILD}", "SERVE_ARGS=--build-arg VARIANTS=few")
    built("make", "images", f"DOCKER={client_with_buildkit()}", "TAG=test", *kinds)
    assert {f"tunesmith-{name}:test" for name in ("serve", "train")} <= {
        t for i in engine.images.list() for t in i.tags
    }


@pytest.fixture(scope="session")
def serve_api(images: None) -> str:
    """The tag of the serve image with the API alone."""
    return built_to_serve("api", "--target", "api", "--build-arg", "VARIANTS=few")


@pytest.fixture(scope="session")
def serve_variants(engine: docker.DockerClient) -> str:
    """The tag of the serve image as users build it, for all processors."""
    return built_to_serve("variants")


def built_to_serve(name: str, *arguments: str) -> str:
    tag, environment = f"tunesmith-serve:{name}", os.environ | {"DOCKER_BUILDKIT": "1"}
    command = [client_with_buildkit(), "build", "--file", "Dockerfile.serve", "--tag", tag, *arguments, "."]
    built(*command, env=environment)
    return tag


@pytest.fixture
def buildkit(monkeypatch: pytest.MonkeyPatch) -> str:
    """The Docker client that builds, which the command `docker` is meanwhile."""
    client = client_with_buildkit()
    monkeypatch.setenv("PATH", str(Path(client).parent), prepend=os.pathsep)
    return client


def built(*command: str, **options: Any) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


def client_with_buildkit() -> str:
    """The first Docker client on PATH that builds with BuildKit: some lack the plugin that theirs needs."""
    clients = [found for place in os.get_exec_path() if (found := shutil.which("docker", path=place))]
    for client in clients:
        trial = [client, "build", "--quiet", "--tag", "tunesmith-buildkit-trial", "-"]
        environment = os.environ | {"DOCKER_BUILDKIT": "1"}
        if not subprocess.run(
            trial, input=b"FROM scratch\nLABEL a=b\n", capture_output=True, env=environment
        ).returncode:
            subprocess.run([client, "rmi", "tunesmith-buildkit-trial"], capture_output=True, check=False)
            return client
    pytest.skip(f"no Docker client that builds with BuildKit among {clients}")


@pytest.fixture(scope="session")
def compose(engine: docker.DockerClient) -> list[str]:
    """The command of Docker Compose, which is a plugin of the client's or a program of its own."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            told = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if told.returncode == 0 and int(told.stdout.lstrip("v").partition(".")[0]) >= 2:
                return command
    pytest.skip("no Docker Compose of version 2 (the plugin of the client, or docker-compose)")


@pytest.fixture(scope="session")
def build(engine: docker.DockerClient) -> Callable[..., None]:
    """Builds an image from the repository: called with its tag, its Dockerfile, and arguments of the build."""
    client = client_with_buildkit()

    def build(tag: str, dockerfile: str, **arguments: str) -> None:
        given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        command = (client, "build", "--file", dockerfile, "--tag", tag, *given, ".")
        built(*command, env=os.environ | {"DOCKER_BUILDKIT": "1"})

    return build
