"""`dvc repro` on the host with train in a container: a round of `make chaos-docker`, and all that it hands on."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

import docker
import mlflow
import pytest
from chaos_bench import ADAPTER, Bench
from chaos_plan import Blow, Harm, Plan
from chaos_process import MARK, ordinary_signals, run
from docker_round import SETTINGS, DockerRound

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.timeout(2400)]

IMAGE = "runtime.docker.image=tunesmith-train:test"
KILLED_THEN_STOPPED_THEN_WITHOUT_DVC = Plan((
    Harm(Blow((SIGKILL,), "container"), "step", 8, 0.5),
    Harm(Blow((SIGTERM,), "container"), "step", 16, 0.5),
    Harm(Blow((SIGKILL,), "both"), "step", 26, 0.5),
))  # fmt: skip
LONGEST = 300  # seconds that a training may take to its first line, and to its end
SECRET = "hf_of_the_test"
NOBODY = 12345  # without a name here
SOCKET = Path("/var/run/docker.sock")


@pytest.fixture(scope="module")
def bench(images: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Prepared data, and a training on the host to which nothing is done."""
    ordinary_signals()
    made = Bench(tmp_path_factory.mktemp("chaos"), sys.executable, "trl", [])
    made.settings += [*SETTINGS, IMAGE]
    return made


def test_a_container_that_is_harmed_goes_on_to_the_hosts_adapter(bench: Bench, tmp_path: Path) -> None:
    result = DockerRound(tmp_path.name, KILLED_THEN_STOPPED_THEN_WITHOUT_DVC, bench).play()
    assert result.wrong == {}
    assert result.starts == 4
    assert result.lost <= bench.save_steps


@pytest.fixture
def owned(bench: Bench, tmp_path: Path) -> Path:
    """A repository that tracks its runs; where we are root, another user's, who has no name."""
    repository = tmp_path / "repository"
    shutil.copytree(bench.template, repository, symlinks=True)
    names = f"runtime.docker.environment=[HF_HUB_OFFLINE,HF_TOKEN,{MARK}]"
    more = ("tracking=mlflow", "train.check_export=false", names)  # the converter is in another user's cache
    run(repository, bench.environment(tmp_path), "pipeline", "adopt", "runtime=docker", IMAGE, *more)
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", str(NOBODY), tmp_path], check=True)
    return repository


def as_owner() -> list[str]:
    """What a command begins with that runs as NOBODY, who may use the engine, and read this interpreter anywhere."""
    if os.getuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to be another user by")
    user = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--groups", str(SOCKET.stat().st_gid)]
    return ["setpriv", *user, "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]


def test_a_container_writes_as_its_caller_and_the_host_goes_on(
    bench: Bench, owned: Path, engine: docker.DockerClient, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # DVC asks for a name, which neither the system has nor its environment.
    environment = bench.environment(tmp_path) | {"HOME": str(tmp_path), "HF_TOKEN": SECRET}
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        environment.pop(name, None)
    command = [*as_owner(), sys.executable, "-m", "pipeline"]
    with log.open("wb") as output:
        first = subprocess.Popen(
            [*command, "repro", "train"],
            cwd=owned, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    wait_for_line(log, r"^step [3-9]/", first)
    os.killpg(first.pid, SIGINT)
    assert first.wait(LONGEST) == 75, log.read_text()
    stopped = re.search(r"^train: SIGINT: resumable at step (\d+)", log.read_text(), re.MULTILINE)
    assert stopped, log.read_text()
    assert {path.lstat().st_uid for path in owned.rglob("*")} == {owned.stat().st_uid}
    assert [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []

    said = ""
    for arguments in (["adopt", "runtime=local"], ["repro", "train"]):
        done = subprocess.run([*command, *arguments], cwd=owned, env=environment, capture_output=True, text=True)
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
    assert re.search(rf"^resuming from \S+/checkpoint-{stopped[1]}$", said, re.MULTILINE), said
    assert (owned / ADAPTER).read_bytes() == bench.usual.adapter

    client = mlflow.MlflowClient(f"sqlite:///{owned}/mlflow.db")
    (tracked,) = client.search_runs([client.get_experiment_by_name("tunesmith").experiment_id])
    assert tracked.data.tags["mlflow.docker.image.uri"] == engine.images.get("tunesmith-train:test").id


def wait_for_line(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until a line of a log begins so."""
    until = time.monotonic() + LONGEST
    while not re.search(pattern, log.read_text(), re.MULTILINE):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
