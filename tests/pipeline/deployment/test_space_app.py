"""A Gradio Space's own program, run as the Space does: in a clone of its repository, by `python app.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from servers import free_port, wait_until
from tiny_gguf import FAREWELL, write_scripted

from pipeline import cli
from pipeline.deployment.question import ask

REPO = Path(__file__).parents[3]


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, as `deploy space --dry-run` writes it."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    model = write_scripted(tmp_path / "polite.gguf", [f" {word}".encode() for word in FAREWELL.split()])
    given = ["--repo", "owner/tiny", "--model", str(model), "--sdk", "gradio", "--dry-run"]
    assert cli.run(["deploy", "space", *given, "--out", str(tmp_path / "app")]) == 0
    return tmp_path / "app"


def test_it_brings_llama_cpp_and_becomes_the_server(space: Path, tmp_path: Path) -> None:
    """The wheel that comes first is another processor's: it is passed over."""
    (space / "wheels").mkdir(exist_ok=True)
    (space / "wheels" / "a_wheel-1-py3-none-linux_riscv64.whl").write_bytes(b"")
    port = free_port()
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("SERVE_", "PYTHONPATH"))}
    variables |= {"TMPDIR": str(tmp_path), "SERVE_PORT": str(port)}  # set in the Space: it stands above settings.json
    log = tmp_path / "log.txt"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "app.py"], cwd=space, env=variables, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_ready(url) or server.poll() is not None)
        assert server.poll() is None, log.read_text()
        assert ask(url, {}) == FAREWELL
        maps = Path(f"/proc/{server.pid}/maps").read_text()
        assert (
            f"{tmp_path}/tunesmith-packages/llama_cpp/lib/" in maps
        )  # the one that came along, not this environment's
    finally:
        server.terminate()
        server.wait(20)
    assert "a_wheel-1-py3-none-linux_riscv64.whl is not for this machine" in log.read_text()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def test_its_settings_are_the_servers(space: Path) -> None:
    """A name that the server does not know would end its start."""
    from serve.settings import Settings

    settings = Settings.from_env(json.loads((space / "settings.json").read_text()))
    assert (settings.host, settings.port, settings.proxy) == ("0.0.0.0", 7860, 1)  # noqa: S104
