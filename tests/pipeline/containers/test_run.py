"""What an engine is asked for, and how its refusals end: through the real SDK, with recorded answers of an engine.

No engine here has a GPU: that a container gets one shows in the request alone. Containers that run are in tests/images.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from recorded_engine import ANSWERS, CONTAINER, IMAGE, Answers, Engine, recorded_engine

from common.errors import MachineError, UserError
from pipeline.containers import run as containers
from pipeline.containers.cards import read_cards
from pipeline.containers.engine import connect, hands_gpus_on, image_of, info_of
from pipeline.containers.run import run_in_container
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.workers.gpus import VISIBLE

REPO = Path(__file__).parents[3]
CARD = "GPU-11111111-2222-3333-4444-555555555555, NVIDIA H200, 580.95.05, 4, 143771\n"
START = ("POST", f"/containers/{CONTAINER['Id']}/start")
INFO = ("GET", "/info")
# As engines say it: https://github.com/NVIDIA/nvidia-docker/issues has them by the dozen.
NO_GPU_RUNTIME = 'could not select device driver "" with capabilities: [[gpu]]'
OLD_DRIVER = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: error running hook #0: exit status 1, stdout: , "
    "stderr: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0, please update your driver to "
    "a newer version, or use an earlier cuda container: unknown"
)
NO_DRIVER_IN_CONTAINER = "stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown"

Started = Callable[..., Engine]


@cache
def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", ["runtime=docker", *overrides]))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with caches beside it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "TUNESMITH_IMAGE", VISIBLE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pipeline.containers.mounts.HUB", {"HF_HOME": str(tmp_path / "hub")})
    monkeypatch.setattr(containers, "cards", list)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    return folder


@pytest.fixture
def started(workspace: Path, tmp_path: Path) -> Started:
    """Trains by an engine with some of its answers changed, and returns what that was asked."""

    def train(changed: Answers | None = None, settings: Config | None = None) -> Engine:
        with recorded_engine(tmp_path, changed) as engine:
            run_in_container("train", settings or config(), Path.cwd())
        return engine

    return train


def created(engine: Engine) -> dict[str, Any]:
    """The one container that the engine was asked to make."""
    (body,) = engine.bodies("/containers/create")
    return dict(body)


def test_a_container_sees_the_repository_as_the_caller_does(
    started: Started, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    monkeypatch.setenv("SOMETHING_ELSE", "not named")
    asked = created(started())

    assert asked["User"] == f"{os.getuid()}:{os.getgid()}"
    assert asked["WorkingDir"] == str(workspace)
    assert asked["Image"] == IMAGE["Id"]
    assert asked["Entrypoint"] == ["dumb-init", "--", "python"]
    assert asked["Cmd"][:3] == ["-m", "pipeline.stages.train", "--config-dir"]
    mounts = {mount["Source"]: mount["Target"] for mount in asked["HostConfig"]["Mounts"]}
    assert (
        mounts.items()
        >= {
            str(workspace): str(workspace),
            str(tmp_path / "hub"): str(tmp_path / "hub"),
            str(tmp_path / "cache/tunesmith/models"): "/home/tunesmith/.cache/tunesmith/models",
        }.items()
    )
    environment = dict(entry.split("=", 1) for entry in asked["Env"])
    assert environment["HF_TOKEN"] == "hf_of_the_test"
    assert environment["TUNESMITH_IMAGE"] == IMAGE["Id"]
    assert "SOMETHING_ELSE" not in environment
    assert asked["HostConfig"]["DeviceRequests"] == []


def test_a_container_ends_with_who_started_it_and_leaves_nothing(started: Started) -> None:
    asked = created(started())
    assert (asked["OpenStdin"], asked["StdinOnce"], asked["AttachStdin"]) == (True, True, True)
    assert asked["HostConfig"]["AutoRemove"]
    assert asked["StopTimeout"] >= 60
    assert "no-new-privileges" in asked["HostConfig"]["SecurityOpt"]


def test_gpus_are_asked_for_by_name(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "cards", lambda: read_cards(CARD, 0))
    wanted = created(started())["HostConfig"]["DeviceRequests"]
    assert [(one["DeviceIDs"], one["Capabilities"]) for one in wanted] == [([CARD.partition(",")[0]], [["gpu"]])]


def test_a_cpu_is_asked_for_none(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "cards", lambda: read_cards(CARD, 0))
    assert created(started(settings=config("runtime.device=cpu")))["HostConfig"]["DeviceRequests"] == []


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            NO_GPU_RUNTIME,
            r"^the Docker engine has no runtime for GPUs; install the NVIDIA container toolkit .*\[\[gpu\]\]\)$",
        ),
        (OLD_DRIVER, r"^the driver is too old for the image's CUDA; update it, or build on an older BASE"),
        (NO_DRIVER_IN_CONTAINER, r"^NVIDIA's container toolkit fails; install .* driver not loaded"),
        ("no space left on device", r"^the Docker engine does not start the container: no space left on device$"),
    ],
)
def test_an_engine_that_refuses_to_start_is_one_line_and_leaves_no_container(
    workspace: Path, tmp_path: Path, said: str, line: str
) -> None:
    with recorded_engine(tmp_path, {START: (500, {"message": said})}) as engine:
        with pytest.raises(MachineError, match=line) as raised:
            run_in_container("train", config(), Path.cwd())
        assert "\n" not in str(raised.value)
        assert ("DELETE", f"/containers/{CONTAINER['Id']}", None) in engine.asked


@pytest.mark.parametrize("status", [1, 75, 137])
def test_a_status_is_handed_on(started: Started, capsys: pytest.CaptureFixture[str], status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        started({("POST", f"/containers/{CONTAINER['Id']}/wait"): (200, {"StatusCode": status})})
    assert ended.value.code == status
    assert ("the container was killed" in capsys.readouterr().err) == (status == 137)


def test_a_rootless_engine_has_its_user_as_root(started: Started) -> None:
    info = {**dict(ANSWERS[INFO][1]), "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}  # type: ignore[call-overload]
    asked = created(started({INFO: (200, info)}))
    assert asked["User"] == "0:0"
    assert asked["HostConfig"].get("GroupAdd") is None


def test_an_image_that_is_not_there_is_said_before_anything_is_made(workspace: Path, tmp_path: Path) -> None:
    with recorded_engine(tmp_path) as engine:
        with pytest.raises(
            UserError, match=r"^no image other here; build it \(docker build -f Dockerfile\.train -t other "
        ):
            run_in_container("train", config("runtime.docker.image=other"), Path.cwd())
        assert engine.bodies("/containers/create") == []


def test_an_image_of_another_kind_is_refused(workspace: Path, tmp_path: Path) -> None:
    other = {**IMAGE, "Config": {"Env": ["PATH=/usr/bin"]}}
    with (
        recorded_engine(tmp_path, {("GET", "/images/tunesmith-train/json"): (200, other)}),
        pytest.raises(UserError, match=r"^tunesmith-train is not built by Dockerfile\.train"),
    ):
        image_of(connect(), config().runtime.docker)


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({}, False),
        ({"Runtimes": {"runc": {}, "nvidia": {"path": "nvidia-container-runtime"}}}, True),
        ({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}, True),
        ({"DiscoveredDevices": None, "Runtimes": None}, False),
    ],
)
def test_whether_an_engine_hands_gpus_on_is_read_of_its_answer(
    workspace: Path, tmp_path: Path, more: dict[str, object], found: bool
) -> None:
    with recorded_engine(tmp_path, {INFO: (200, {**dict(ANSWERS[INFO][1]), **more})}):  # type: ignore[call-overload]
        assert hands_gpus_on(info_of(connect())) is found


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("unix:///nowhere/engine.sock", "train: no Docker engine answers (No such file or directory); start one"),
        ("tcp://elsewhere:2376", "train: DOCKER_HOST is tcp://elsewhere:2376, another machine's engine"),
    ],
)
def test_a_stage_without_an_engine_ends_in_one_line(tmp_path: Path, host: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.stages.train", "runtime=docker", f"hydra.run.dir={tmp_path}"],
        cwd=REPO, env=os.environ | {"DOCKER_HOST": host}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)


def test_a_secret_in_the_place_of_a_name_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match=r"^runtime\.docker\.environment\[0\] is no name") as raised:
        config("runtime.docker.environment=['HF_TOKEN=hf_secret']")
    assert "secret" not in str(raised.value)
