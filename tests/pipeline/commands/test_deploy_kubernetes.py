"""The manifests that are written, held against Kubernetes' own schemas; no cluster is asked."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tiny_gguf import write_random

from pipeline import cli

IMAGE = "registry.example/chat:1"
VERSIONS = ("1.30", "1.37")  # an old one, and the newest whose schemas there are
WRITTEN = Path("deploy/kubernetes/tunesmith.yaml")


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and the folder to work in."""
    monkeypatch.chdir(tmp_path)
    return write_random(Path("tiny.gguf"))


def deployed(*arguments: str) -> dict[str, Any]:
    """The manifests by their kinds."""
    assert cli.run(["deploy", "kubernetes", "--image", IMAGE, "--model", "tiny.gguf", *arguments]) == 0
    return {made["kind"]: made for made in yaml.safe_load_all(WRITTEN.read_text())}


def pod(made: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = made["Deployment"]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_what_kubernetes_knows(version: str) -> None:
    made = deployed("--feedback", "me/said", "--secret", "SERVE_API_KEY")
    assert made.keys() == {"Deployment", "Service", "HorizontalPodAutoscaler"}
    for manifest in made.values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_that_kubernetes_does_not_know_is_found() -> None:
    made = deployed()
    pod(made)["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(made["Deployment"], VERSIONS[-1], strict=True)


def test_a_pod_may_do_nothing_that_the_server_does_not_need() -> None:
    made = pod(deployed())
    assert made["securityContext"]["runAsUser"] == 1000
    assert made["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert made["automountServiceAccountToken"] is False
    (server,) = made["containers"]
    assert server["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert server["resources"]["requests"] == server["resources"]["limits"]


def test_a_pod_takes_its_place_when_it_is_ready_and_leaves_when_its_answers_are_out() -> None:
    made = deployed("--set", "SERVE_DRAIN=50")
    assert made["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert pod(made)["terminationGracePeriodSeconds"] == 70
    (server,) = pod(made)["containers"]
    assert [server[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")] == [
        "/readyz", "/readyz", "/healthz",
    ]  # fmt: skip


def test_pods_follow_from_the_questions_that_wait() -> None:
    made = deployed("--least", "2", "--most", "8")
    spec = made["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 8)
    assert spec["metrics"][0]["pods"]["metric"]["name"] == "tunesmith_waiting"
    assert "replicas" not in made["Deployment"]["spec"]  # or each apply would undo what it has made


def test_a_fixed_number_of_pods_has_no_autoscaler() -> None:
    made = deployed("--least", "3", "--most", "3")
    assert made.keys() == {"Deployment", "Service"}
    assert made["Deployment"]["spec"]["replicas"] == 3


def test_feedback_is_asked_for_where_something_keeps_it() -> None:
    def environment(*arguments: str) -> dict[str, Any]:
        (server,) = pod(deployed("--force", *arguments))["containers"]
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in server["env"]}

    assert environment()["SERVE_FEEDBACK"] == "off"
    kept = environment("--feedback", "me/said")
    assert "SERVE_FEEDBACK" not in kept
    assert kept["HF_TOKEN"] == {"secretKeyRef": {"name": "tunesmith", "key": "HF_TOKEN"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--name", "My_Chat"), "--name My_Chat must be of small letters"),
        (("--least", "5"), "--least 5 is more than --most 4"),
    ],
)
def test_what_cannot_be_is_refused(given: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["deploy", "kubernetes", "--image", IMAGE, "--model", "tiny.gguf", *given]) == 1
    assert capsys.readouterr().err.startswith(f"deploy kubernetes: {said}")
    assert not WRITTEN.exists()
