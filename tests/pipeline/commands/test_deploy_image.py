"""What an image says of itself, and what is refused before it is built; images that are built are in tests/images."""

from pathlib import Path

import pytest
from lineages import REPO, lineage_here
from tiny_gguf import write_other

from pipeline import cli
from pipeline.deployment.image import labels
from pipeline.deployment.model import on_this_machine

BASE = ("python:3.11", "sha256:" + "6" * 64)


def test_an_image_says_which_code_model_data_and_licence_it_is_of(tmp_path: Path) -> None:
    lineage = lineage_here(REPO)
    file = write_other(tmp_path / "tuned-Q8_0.gguf", "llama", tunesmith__lineage=lineage.model_dump_json())
    model = on_this_machine(str(file))
    said = labels(model, "registry.example.org/chat", "1", BASE)
    assert said["org.opencontainers.image.licenses"] == "Apache-2.0"  # the starter's, too
    assert len(said["org.opencontainers.image.revision"].rstrip("+")) == 40
    assert said["org.opencontainers.image.base.digest"] == "sha256:" + "6" * 64
    assert said["tunesmith.model.base"] == "starter/models/starter-s"
    assert said["tunesmith.data"] == "train=" + "a" * 64
    assert said["tunesmith.model.sha256"] == model.digests[0]
    assert said["tunesmith.model.licence"] == "apache-2.0"


def test_what_a_file_does_not_say_is_left_out(tmp_path: Path) -> None:
    said = labels(on_this_machine(str(write_other(tmp_path / "foreign.gguf", "llama"))), "chat", "1", BASE)
    assert said["org.opencontainers.image.licenses"] == "Apache-2.0 AND LicenseRef-not-recorded"
    assert not {"tunesmith.data", "tunesmith.model.base", "tunesmith.model.revision"} & said.keys()


@pytest.mark.parametrize(
    ("tag", "line"),
    [
        ("Chat:1", "Chat:1 is no tag of an image; name it NAME:TAG in small letters"),
        ("chat:-1", "chat:-1 is no tag of an image"),
        ("registry.example.org:5000/my/chat:1", "no Docker engine answers"),
        ("chat", "no Docker engine answers"),
    ],
)
def test_tags_that_cannot_be_and_a_missing_engine_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tag: str, line: str
) -> None:
    command = tmp_path / "docker"
    command.write_text("")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/missing.sock")
    model = write_other(tmp_path / "foreign.gguf", "llama")
    assert cli.run(["deploy", "image", "--tag", tag, "--model", str(model)]) == 1
    assert capsys.readouterr().err.startswith(f"deploy image: {line}")
