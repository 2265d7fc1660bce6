"""What docs/security.md promises that no other test looks for: containers without rights, settings without secrets."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|(?<!PUBLIC_)KEY\b", re.IGNORECASE)


def service(name: str) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return dict(services[name])


def test_the_chat_of_compose_has_no_rights_and_is_limited() -> None:
    chat = service("serve")
    assert chat["read_only"] is True
    assert chat["cap_drop"] == ["ALL"]
    assert chat["security_opt"] == ["no-new-privileges:true"]  # and so the engine's own seccomp profile
    assert chat["pids_limit"] > 0
    assert chat["ulimits"]["nofile"] > 0
    assert re.fullmatch(r"\$\{CHAT_MEMORY:-\d+g\}", chat["mem_limit"])
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode"} & chat.keys()
    assert not [mount for mount in chat["volumes"] if "docker.sock" in mount]


@pytest.mark.parametrize("path", sorted(ROOT.glob("Dockerfile*[a-z]")), ids=lambda path: path.name)
def test_no_dockerfile_takes_a_secret_as_an_argument_or_a_variable(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    named = re.findall(r"^\s*(?:ARG|ENV)\s+(.*)$", text, re.MULTILINE)
    assert not [words for words in named if SECRET.search(words)]


def test_no_setting_reads_the_environment() -> None:
    """DVC writes what is composed into params.yaml, and MLflow is told it."""
    files = [*(ROOT / "conf").rglob("*.yaml"), ROOT / "params.yaml"]
    assert len(files) > 50
    assert not [str(path) for path in files if "oc.env" in path.read_text(encoding="utf-8")]


@pytest.mark.long
def test_an_audit_that_cannot_ask_fails(tmp_path: Path) -> None:
    made = ["make", f"LOCK={tmp_path}/lock"]
    subprocess.run([*made, f"{tmp_path}/lock/ready"], cwd=ROOT, check=True, capture_output=True)
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"NO_PROXY": "", "no_proxy": ""}
    asked = [*made, f"AUDIT_ARGS=--timeout 3 --cache-dir {tmp_path}/cache", "audit"]
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "No known vulnerabilities found" not in done.stdout + done.stderr
