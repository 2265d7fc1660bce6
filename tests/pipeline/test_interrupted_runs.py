"""Trainings ended from outside under real DVC: `dvc repro`, experiments in the workspace and apart, the queue.

Every start goes on from the checkpoint that the interruption before has left, until one is let run to its end: so each
also shows that the start after it needs no help. Seconds are only ever limits.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[2]
# What the stage needs of this project; no result of an earlier run is among it.
NEEDED = (
    ".dvc", ".dvcignore", ".gitignore", "common", "conf", "data", "dvc.yaml", "llama", "models", "params.yaml",
    "pipeline", "starter",
)  # fmt: skip
STEPS = 40
SETTINGS = (
    "model=starter-s",
    "tracking=none",
    "runtime.device=cpu",
    "data.max_rows=76",
    "data.validation=8",
    "data.test=8",
    "train.lora.r=4",
    "train.batch_size=4",
    "train.effective_batch=16",
    "train.gradient_accumulation_steps=2",
    f"train.max_steps={STEPS}",
    "train.save_steps=1000",  # no checkpoint but those of interruptions and the last one
    "train.eval_steps=1000",
    "train.logging_steps=1",
)
REPRO = ("dvc", "repro", "train")
DIRECT = (
    "python",
    "-m",
    "pipeline.stages.train",
    "--config-dir",
    ".",
    "--config-name",
    "params",
    "hydra/job_logging=stdout",
)
MARK = "TUNESMITH_INTERRUPTED"  # in the environment of all that a test starts; its value is the workspace
LONGEST = 300.0  # seconds that anything may take
POLL = 0.02  # seconds; an update takes some 100 ms
BLOWS = {
    "SIGTERM": ("trainer", signal.SIGTERM),
    "Ctrl-C": ("group", signal.SIGINT),
    "dvc killed": ("dvc", signal.SIGKILL),
    "dvc terminated": ("dvc", signal.SIGTERM),
}


SHORT = ("SIGTERM", "dvc killed")  # what `make test` strikes with


class Trainer:
    """The process of the train stage, and the log that it shares with the DVC which started it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.log = Path(f"/proc/{pid}/fd/1").readlink()

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, updates: int) -> bool:
        """Waits until this start has made so many updates; false if it ends before."""
        line = re.compile(rf"^step \d+/{STEPS} ", re.MULTILINE)
        until(lambda: len(line.findall(self.text())) >= updates or self.ended(), f"{updates} updates")
        return not self.ended()

    def ended(self) -> bool:
        return not proc(self.pid, "environ")

    def no_longer_takes(self, number: signal.Signals) -> bool:
        """Whether it has given its handler of a signal back, as it does at the first request."""
        caught = re.search(rb"^SigCgt:\s*(\w+)$", proc(self.pid, "status"), re.MULTILINE)
        return caught is None or not int(caught[1], 16) >> (number - 1) & 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still where it is, so that what the block does never comes too late; signals wait."""
        os.kill(self.pid, signal.SIGSTOP)
        yield
        os.kill(self.pid, signal.SIGCONT)


def proc(pid: int, name: str) -> bytes:
    """What /proc says of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def processes(workspace: Path) -> list[int]:
    """All that the tests have started and that lives."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if f"{MARK}={workspace}\0".encode() in proc(pid, "environ")]


def find_trainer(workspace: Path) -> int | None:
    return next((pid for pid in processes(workspace) if b"\0pipeline.stages.train\0" in proc(pid, "cmdline")), None)


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first value of `condition` that is true."""
    end = time.monotonic() + LONGEST
    while not (value := condition()):
        assert time.monotonic() < end, f"no {what} within {LONGEST:.0f} s"
        time.sleep(POLL)
    return value


def environment(workspace: Path) -> dict[str, str]:
    caches = workspace.parent
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "PYTHONPATH"))}
    return ours | {
        MARK: str(workspace),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_DATASETS_CACHE": str(caches / "datasets"),
        "DVC_SITE_CACHE_DIR": str(caches / "site"),
        "CI": "true",  # DVC then starts no background process that looks for a newer DVC
        **{f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


def run(workspace: Path, *command: str, status: int = 0) -> str:
    """What a command prints; a status other than the expected one fails the test with it."""
    with tempfile.TemporaryFile("w+") as output:  # not a pipe, which a queue's worker would keep open
        settings = {"cwd": workspace, "env": environment(workspace)}
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, **settings)
        output.seek(0)
        text = output.read()
    assert ended.returncode == status, f"{' '.join(command)} ended with {ended.returncode}:\n{text[-4000:]}"
    return text


@contextmanager
def started(workspace: Path, *command: str) -> Iterator[tuple[subprocess.Popen, Trainer]]:
    """A DVC and its trainer, in a session of their own; what is left of them is killed at the end."""
    log = workspace.parent / "dvc.log"
    with log.open("wb") as output:
        dvc = subprocess.Popen(
            command, cwd=workspace, env=environment(workspace),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: find_trainer(workspace) or dvc.poll() is not None, "trainer")
        pid = find_trainer(workspace)
        assert pid, log.read_text()
        yield dvc, Trainer(pid)
    finally:
        kill_what_is_left(workspace)
        dvc.wait()


def kill_what_is_left(workspace: Path) -> None:
    while left := processes(workspace):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL)


def end(workspace: Path, dvc: subprocess.Popen) -> int:
    """DVC's status, once nothing is left of what it has started."""
    status = dvc.wait(LONGEST)
    until(lambda: not processes(workspace), "end of all processes")
    return status


def strike(blow: str, dvc: subprocess.Popen, trainer: Trainer) -> str:
    """Ends the one or the other so, and returns what the trainer calls it."""
    target, number = BLOWS[blow]
    if target == "group":
        os.killpg(dvc.pid, number)
    else:
        os.kill(dvc.pid if target == "dvc" else trainer.pid, number)
    return "DVC is gone" if target == "dvc" else number.name


def newest(workspace: Path, seed: int = 42) -> int:
    """The step of the newest whole checkpoint of the training with that seed; 0 if there is none."""
    steps = [0]
    for settings in workspace.glob(".checkpoints/*/settings.json"):
        if json.loads(settings.read_text())["train"]["seed"] == seed:
            steps += [int(mark.parent.name[11:]) for mark in settings.parent.glob("checkpoint-*/complete.json")]
    return max(steps)


def went_on_from(workspace: Path, text: str) -> int:
    """The step that a training was resumed at, from the original repository's checkpoints; 0 if it started anew."""
    found = re.search(r"^resuming from (.*)/\w+/checkpoint-(\d+)$", text, re.MULTILINE)
    assert found is None or found[1] == str(workspace / ".checkpoints")
    return int(found[2]) if found else 0


def stopped(text: str) -> tuple[str, int]:
    """By what, and at which step, a trainer says that it has ended."""
    (found,) = re.findall(r"^train: (.+): resumable at step (\d+); the same command goes on from there$", text, re.M)
    return found[0], int(found[1])


def recorded(workspace: Path, experiment: str | None = None) -> bool:
    """Whether DVC has a result of the stage, or of an experiment of that name."""
    if experiment:
        return bool(run(workspace, "git", "for-each-ref", f"refs/exps/*/*/{experiment}"))
    return "\n  train:\n" in (workspace / "dvc.lock").read_text()


def adopt(workspace: Path, *overrides: str) -> None:
    run(workspace, "python", "-m", "pipeline", "adopt", "--reset", *SETTINGS, *overrides)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository of this project's files with prepared data and nothing trained, committed."""
    folder = tmp_path_factory.mktemp("interrupted") / "repository"
    folder.mkdir()
    listed = run(REPO, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *NEEDED)
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, folder / name)
    run(folder, "git", "init", "-q", "-b", "main")
    adopt(folder)
    run(folder, "dvc", "repro", "prepare")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "prepared")
    yield folder
    kill_what_is_left(folder)


@pytest.fixture
def tidy(workspace: Path) -> Path:
    """The workspace as it was committed; checkpoints stay."""
    run(workspace, "git", "checkout", "-q", "-f", "main")
    run(workspace, "git", "clean", "-q", "-fd")
    shutil.rmtree(workspace / "models/adapter", ignore_errors=True)
    return workspace


def assert_not_done(workspace: Path) -> None:
    assert not recorded(workspace)
    assert not (workspace / "models/adapter").exists()
    assert re.search(r"^train:\n\tchanged", run(workspace, "dvc", "status", "train"), re.MULTILINE)


def test_a_time_limit_too_short_for_one_update_says_so(workspace: Path) -> None:
    adopt(workspace, "runtime.time_limit=1s")
    with started(workspace, *REPRO) as (dvc, trainer):
        assert end(workspace, dvc) != 0
    assert "\ntrain: the time limit: stopped before the first update; the same command starts again\n" in trainer.text()
    assert newest(workspace) == 0
    assert_not_done(workspace)


def test_a_training_whose_time_is_up_goes_on_in_the_next_repro(workspace: Path) -> None:
    adopt(workspace, "runtime.time_limit=10s")
    with started(workspace, *REPRO) as (dvc, trainer):
        if trainer.wait_for(1):  # which a busy machine does not reach in time
            with trainer.frozen():
                over = psutil.Process(trainer.pid).create_time() + 10
                until(lambda: time.time() > over, "end of the time")
        assert end(workspace, dvc) != 0
    if "\nstep 1/" in trainer.text():
        assert stopped(trainer.text()) == ("the time limit", newest(workspace))
    else:
        assert "\ntrain: the time limit: stopped before the first update;" in trainer.text()
    adopt(workspace)
    assert_not_done(workspace)


@pytest.mark.parametrize(
    "blow", [blow if blow in SHORT else pytest.param(blow, marks=pytest.mark.long) for blow in BLOWS]
)
def test_a_stopped_repro_leaves_a_checkpoint_and_no_process_and_the_next_one_goes_on(
    workspace: Path, blow: str
) -> None:
    before = newest(workspace)
    with started(workspace, *REPRO) as (dvc, trainer):
        assert trainer.wait_for(1), trainer.text()
        reason = strike(blow, dvc, trainer)
        assert end(workspace, dvc) != 0
    assert went_on_from(workspace, trainer.text()) == before
    assert stopped(trainer.text()) == (reason, newest(workspace))
    assert newest(workspace) > before
    assert_not_done(workspace)


def test_a_second_sigterm_ends_at_once_and_the_checkpoint_before_it_is_whole(workspace: Path) -> None:
    before = newest(workspace)
    with started(workspace, *REPRO) as (dvc, trainer):
        assert trainer.wait_for(1), trainer.text()
        os.kill(trainer.pid, signal.SIGTERM)
        while not trainer.no_longer_takes(signal.SIGTERM):
            pass
        os.kill(trainer.pid, signal.SIGTERM)
        assert end(workspace, dvc) != 0
    assert "resumable" not in trainer.text()
    assert "exited with -15" in trainer.text()
    assert went_on_from(workspace, trainer.text()) == newest(workspace) == before
    assert_not_done(workspace)


def test_a_second_trainer_is_refused_with_the_holder_and_the_first_goes_on_to_the_end(
    workspace: Path, tmp_path: Path
) -> None:
    before = newest(workspace)
    with started(workspace, *REPRO) as (dvc, trainer):
        assert trainer.wait_for(1), trainer.text()
        with trainer.frozen():
            direct = run(workspace, *DIRECT, "hydra.output_subdir=null", f"hydra.run.dir={tmp_path}", status=1)
            apart = run(workspace, "dvc", "exp", "run", "--temp", "train", "-n", "second", status=255)
        assert end(workspace, dvc) == 0
    said = re.compile(rf"^train: process {trainer.pid} on .* trains the same in {workspace}/\.checkpoints/\w+;", re.M)
    assert said.search(direct)
    assert said.search(apart)
    assert "exited with 1\n" in apart
    assert not list(tmp_path.iterdir())
    assert went_on_from(workspace, trainer.text()) == before
    assert f"\nstep {STEPS}/{STEPS} " in trainer.text()
    assert recorded(workspace)
    assert not recorded(workspace, "second")
    assert (workspace / "models/adapter/adapter_model.safetensors").is_file()
    assert "up to date" in run(workspace, "dvc", "status", "train")


@pytest.mark.parametrize(
    ("where", "seed"),
    [pytest.param((), 1, id="workspace"), pytest.param(("--temp",), 2, id="temp", marks=pytest.mark.long)],
)
def test_the_same_experiment_goes_on_where_it_was_stopped(tidy: Path, where: tuple[str, ...], seed: int) -> None:
    name = f"stopped-{seed}"
    command = ("dvc", "exp", "run", *where, "train", "-S", f"train.seed={seed}", "-n", name)
    for blow in ("SIGTERM", "dvc killed"):
        before = newest(tidy, seed)
        with started(tidy, *command) as (dvc, trainer):
            assert trainer.wait_for(1), trainer.text()
            reason = strike(blow, dvc, trainer)
            assert end(tidy, dvc) != 0
        assert went_on_from(tidy, trainer.text()) == before
        assert stopped(trainer.text()) == (reason, newest(tidy, seed))
        assert newest(tidy, seed) > before
        assert not recorded(tidy, name)
    before = newest(tidy, seed)
    with started(tidy, *command) as (dvc, trainer):
        assert end(tidy, dvc) == 0, trainer.text()
    assert went_on_from(tidy, trainer.text()) == before
    assert recorded(tidy, name)


def queued(workspace: Path, name: str) -> Trainer:
    """Queues the same experiment under another name, and waits for the trainer that a new worker starts."""
    run(workspace, "dvc", "exp", "run", "--queue", "train", "-S", "train.seed=3", "-n", name)
    run(workspace, "dvc", "queue", "start")
    return Trainer(until(lambda: find_trainer(workspace), "trainer"))


def outcome(workspace: Path, name: str) -> str:
    """What the queue says of a task, once its worker has ended."""
    until(lambda: not processes(workspace), "end of the worker")
    (line,) = [line for line in run(workspace, "dvc", "queue", "status").splitlines() if f" {name} " in line]
    return line.split()[-1]


@pytest.fixture
def queue(tidy: Path) -> Iterator[Path]:
    """The workspace, without workers afterwards."""
    yield tidy
    if processes(tidy):
        run(tidy, "dvc", "queue", "stop", "--kill")
    kill_what_is_left(tidy)


@pytest.mark.long
def test_a_queued_experiment_that_is_stopped_has_failed_and_the_same_queued_again_goes_on(queue: Path) -> None:
    for name, command, reason in (
        ("stopped", ("stop",), "SIGTERM"),
        # The kernel sends SIGHUP to a group that stands still when the last of its parents ends: here it is either.
        ("killed", ("kill", "killed"), "SIGINT|SIGHUP"),
        ("dropped", ("stop", "--kill"), "DVC is gone|SIGHUP"),
    ):
        before = newest(queue, 3)
        trainer = queued(queue, name)
        assert trainer.wait_for(1), trainer.text()
        with trainer.frozen():
            run(queue, "dvc", "queue", *command)
            if name == "stopped":  # for which the worker waits
                os.kill(trainer.pid, signal.SIGTERM)
        assert outcome(queue, name) == "Failed"
        assert went_on_from(queue, trainer.text()) == before
        stop, step = stopped(trainer.text())
        assert stop in reason.split("|")
        assert step == newest(queue, 3)
        assert newest(queue, 3) > before
        assert not recorded(queue, name)
    before = newest(queue, 3)
    trainer = queued(queue, "finished")
    run(queue, "dvc", "queue", "stop")
    assert outcome(queue, "finished") == "Success"
    assert went_on_from(queue, trainer.text()) == before
    assert recorded(queue, "finished")
