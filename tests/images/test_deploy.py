"""What `tunesmith deploy` makes, built by an engine and run as its hosts do: a Docker Space, and an image."""

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound
from tiny_gguf import FAREWELL, write_other, write_scripted

from pipeline import cli
from pipeline.containers.engine import run_build
from pipeline.deployment.question import ask, wait_until_ready

SPACE, IMAGE = "tunesmith-deploy-space:test", "tunesmith-deploy-image:test"

pytestmark = [pytest.mark.images, pytest.mark.long, pytest.mark.timeout(2400), pytest.mark.usefixtures("buildkit")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says one sentence."""
    path = tmp_path_factory.mktemp("model") / "polite.gguf"
    return write_scripted(path, [f" {word}".encode() for word in FAREWELL.split()])


@pytest.fixture(autouse=True)
def clean(engine: docker.DockerClient) -> Iterator[None]:
    """No image of these tests is left."""
    yield
    for tag in (SPACE, IMAGE):
        if engine.images.list(name=tag):
            engine.images.remove(tag, force=True)


def test_a_docker_space_answers_with_what_a_space_has(
    engine: docker.DockerClient, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    given = ["--repo", "owner/tiny", "--model", str(model), "--sdk", "docker", "--dry-run"]
    assert cli.run(["deploy", "space", *given, "--out", str(tmp_path / "space")]) == 0
    run_build(["--tag", SPACE, str(tmp_path / "space")], SPACE)
    container = engine.containers.run(
        SPACE,
        detach=True,
        user="1000",
        nano_cpus=2_000_000_000,
        mem_limit="16g",
        ports={"7860/tcp": ("127.0.0.1", None)},
    )
    try:
        container.reload()
        url = f"http://127.0.0.1:{container.ports['7860/tcp'][0]['HostPort']}"
        wait_until_ready(url, {}, 120)
        assert ask(url, {}) == FAREWELL
    finally:
        container.remove(force=True, v=True)


def test_an_image_is_tagged_when_it_has_answered(
    engine: docker.DockerClient, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["deploy", "image", "--tag", IMAGE, "--model", str(model)]) == 0
    assert f"answer  {FAREWELL}" in capsys.readouterr().out
    image = engine.images.get(IMAGE)
    assert image.labels["tunesmith.model"] == "polite.gguf"
    assert image.labels["org.opencontainers.image.version"] == "test"
    bill = engine.containers.run(IMAGE, ["cat", "/app/sbom/image.cdx.json"], remove=True)
    assert {"gradio", "llama_cpp_python"} <= {part["name"] for part in json.loads(bill)["components"]}


def test_an_image_that_does_not_answer_gets_no_tag(
    engine: docker.DockerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {image.id for image in engine.images.list()}
    broken = write_other(tmp_path / "broken.gguf", "llama")
    assert cli.run(["deploy", "image", "--tag", IMAGE, "--model", str(broken)]) == 1
    assert "deploy image: the image ends instead of answering: error: " in capsys.readouterr().err
    with pytest.raises(ImageNotFound):
        engine.images.get(IMAGE)
    assert {image.id for image in engine.images.list()} == before
