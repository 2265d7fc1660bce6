"""What `docker compose` is to serve a model by; that it does is tests/images/test_rolling.py's."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_gguf import write_random

from common.files import sha256
from pipeline import cli
from pipeline.deployment.model import on_this_machine
from pipeline.deployment.service import memory_of
from serve.settings import Settings

IMAGE = "registry.example/chat:1"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and the folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVE_LOGIN", "visitor:of the test")
    return write_random(Path("tiny.gguf"))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one line that the command ends with."""

    def line(*arguments: str, model: str = "tiny.gguf") -> str:
        capsys.readouterr()
        assert cli.run(["deploy", "compose", "--image", IMAGE, "--model", model, *arguments]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        return said.removeprefix("deploy compose: ")

    return line


def deployed(*arguments: str) -> dict[str, Any]:
    """The services that the command writes."""
    assert cli.run(["deploy", "compose", "--image", IMAGE, "--model", "tiny.gguf", *arguments]) == 0
    return yaml.safe_load(Path("deploy/compose/compose.yaml").read_text())["services"]


def test_two_versions_stand_behind_a_proxy_and_one_of_them_is_up(model: Path) -> None:
    services = deployed("--port", "8080")
    assert services.keys() == {"proxy", "blue", "green"}
    assert services["proxy"]["ports"] == ["${PORT:-7860}:7860"]
    for colour in ("blue", "green"):
        assert services[colour]["profiles"] == [colour]
        assert services[colour]["image"] == f"${{{colour.upper()}}}"
        assert f"server {colour} {colour}:7860 cookie {colour}\n" in Path("deploy/compose/haproxy.cfg").read_text()
    choices = Path("deploy/compose/.env").read_text().splitlines()
    assert choices == ["COMPOSE_PROFILES=blue", "PORT=8080", f"BLUE={IMAGE}", f"GREEN={IMAGE}"]


def test_a_server_has_what_its_model_needs_and_no_rights(model: Path) -> None:
    server = deployed("--set", "SERVE_DRAIN=50", "--set", "SERVE_MODEL=a$b", "--set", "SERVE_MAX_TOKENS=99")["blue"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["environment"] == {
        "SERVE_LAMEDUCK": "10", "SERVE_DRAIN": "50", "SERVE_PROXY": "1", "SERVE_MODEL": "a$$b",
        "SERVE_MAX_TOKENS": "99",
    }  # fmt: skip
    assert server["stop_grace_period"] == "70s"
    needed = memory_of(on_this_machine("tiny.gguf"), Settings())
    assert server["mem_limit"] == f"{needed >> 20}m"


def test_memory_is_that_of_weights_and_of_conversations(model: Path) -> None:
    small = on_this_machine(str(model))
    large = on_this_machine(str(write_random(Path("large.gguf"), width=256, context=8192)))
    usual, longer = Settings(slots=32), Settings(slots=32, context=8192)
    assert memory_of(large, usual) - memory_of(small, usual) > large.size - small.size
    assert memory_of(large, longer) > memory_of(large, usual)
    assert memory_of(small, longer) == memory_of(small, usual)  # which can hold 512 tokens


def test_secrets_are_named_and_never_written(model: Path) -> None:
    assert deployed("--secret", "SERVE_LOGIN", "--feedback", "me/said")["green"]["environment"].items() >= {
        "SERVE_LOGIN": None, "HF_TOKEN": None, "SERVE_FEEDBACK_REPO": "me/said",
    }.items()  # fmt: skip
    assert [file for file in Path("deploy").rglob("*") if file.is_file() and "of the test" in file.read_text()] == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--set", "SERVE_API_KEY=of the test"), "SERVE_API_KEY is a secret, and what is written here others may read"),
        (("--set", "AWS_SECRET_ACCESS_KEY=of the test"), "AWS_SECRET_ACCESS_KEY is a secret"),
        (("--secret", "SERVE_LOGIN=of the test"), "--set and --secret take a variable's name"),
        (("--set", "SERVE_CONTEXT"), "--set SERVE_CONTEXT must be NAME=VALUE"),
        (("--set", "SERVE_CONTEX=1"), "SERVE_CONTEX is no setting; the nearest is SERVE_CONTEXT"),
        (("--set", "SERVE_CONTEXT=1"), "SERVE_CONTEXT=1: must be a whole number from 64"),
    ],
)
def test_what_cannot_be_is_refused(model: Path, refused: Any, given: tuple[str, str], said: str) -> None:
    line = refused(*given)
    assert line.startswith(said)
    assert "of the test" not in line
    assert not Path("deploy").exists()


def test_a_missing_model_is_refused(model: Path, refused: Any) -> None:
    assert refused(model="missing.gguf").startswith("missing.gguf is no file here")


def test_files_that_somebody_changed_stay(model: Path, refused: Any) -> None:
    deployed()
    choices = Path("deploy/compose/.env")
    choices.write_text(choices.read_text().replace("GREEN=registry.example/chat:1", "GREEN=registry.example/chat:2"))
    before = sha256(Path("deploy"))
    assert refused() == "deploy/compose/.env is another one already; --force replaces it, --out names a new folder"
    assert sha256(Path("deploy")) == before
    deployed("--force")
    assert sha256(Path("deploy")) != before
