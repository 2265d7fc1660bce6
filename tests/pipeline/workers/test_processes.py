"""Two processes that train together, on a CPU through gloo: the same result, one voice, one end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from chats import STARTER_S
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import open_dict
from safetensors.torch import load_file

from pipeline.core.composition import DEFAULTS, compose
from pipeline.core.config import Config, load
from pipeline.stages import train
from pipeline.workers.launcher import write_settings

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[3]
SETTINGS = [
    *STARTER_S,
    "train.lora.r=4",
    "train.batch_size=4",
    "train.max_steps=6",
    "train.save_steps=3",
    "train.eval_steps=3",
    "train.logging_steps=1",
    "train.max_length=128",
    "train.check_export=false",
]
ENDLESS = ("train.max_steps=100000", "train.save_steps=100000", "train.eval_steps=100000")
FULL = ("train=full", "train.lr=7e-4", "train.eval_steps=1", "train.patience=9")  # the third step is the best
ADAPTER = "models/adapter/adapter_model.safetensors"
MODEL = "models/adapter/model.safetensors"
LONGEST = 120.0  # seconds that anything may take
POLL = 0.02


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", [*SETTINGS, *overrides]))


def alone(project: Path, name: str, *overrides: str) -> Path:
    """Trains in this process, with outputs in a folder of that name and checkpoints in another."""
    out = project / name
    settings = config(f"runtime.checkpoint_root=.{name}", *overrides)
    train.run(settings, out)
    return out


def command(name: str, *overrides: str) -> list[str]:
    ours = [f"runtime.checkpoint_root=.{name}", f"hydra.run.dir={name}", "hydra/job_logging=stdout"]
    return ["-m", "pipeline.stages.train", *SETTINGS, *ours, *overrides]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}


def pair(project: Path, name: str, *overrides: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The same in two processes."""
    line = [sys.executable, *command(name, "runtime.processes=2", *overrides)]
    done = subprocess.run(line, cwd=project, env=environment(), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@contextmanager
def started(project: Path, name: str) -> Iterator[tuple[subprocess.Popen, list[psutil.Process], Path]]:
    """The launcher, its two workers once they learn, and the log; what is left of them is killed at the end."""
    log = project / f"{name}.log"
    line = [sys.executable, *command(name, "runtime.processes=2", *ENDLESS)]
    with log.open("wb") as output:
        launcher = subprocess.Popen(line, cwd=project, env=environment(), stdout=output, stderr=output)
    workers: list[psutil.Process] = []
    try:
        until(lambda: "\nstep 2/" in log.read_text() or launcher.poll() is not None)
        assert launcher.poll() is None, log.read_text()
        workers = psutil.Process(launcher.pid).children()
        assert len(workers) == 2
        yield launcher, workers, log
    finally:
        for process in (launcher, *workers):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        launcher.wait()


def until(condition: Callable[[], Any]) -> Any:
    """The first value of `condition` that is true."""
    end = time.monotonic() + LONGEST
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(POLL)
    return value


def newest(project: Path, name: str) -> int:
    """The step of the newest checkpoint that is marked complete."""
    return max((int(path.parent.name[11:]) for path in project.glob(f".{name}/*/*/complete.json")), default=0)


def copied(project: Path, source: str, name: str) -> None:
    """The checkpoints of a training without the last one, as those of another."""
    shutil.copytree(project / f".{source}", project / f".{name}")
    for last in (project / f".{name}").glob("*/checkpoint-6"):
        shutil.rmtree(last)


def losses(out: Path) -> list[float]:
    lines = (out / "reports/loss.csv").read_text().splitlines()[1:]
    return [float(line.split(",")[2]) for line in lines]


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "reports/train.json").read_text())


def assert_same(left: Path, right: Path, file: str = ADAPTER) -> None:
    """The same losses, and the same weights but for what sums in another order do to Adam's first steps."""
    assert losses(left) == pytest.approx(losses(right), rel=1e-4)
    ours, theirs = load_file(left / file), load_file(right / file)
    assert ours.keys() == theirs.keys()
    far = [name for name, tensor in ours.items() if not torch.allclose(tensor, theirs[name], rtol=1e-3, atol=5e-4)]
    assert not far


def one_line(text: str) -> str:
    """The line that a stage ends with, which is there once, without a traceback."""
    assert "Traceback" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("train: ") and not line.endswith("assistant")]
    return line


def test_workers_get_the_configuration_to_the_letter(tmp_path: Path) -> None:
    given = config("train.lr=1e-5", "train.stop_step=3")
    given = replace(given, evaluate=replace(given.evaluate, prompts=["What is ${HOME}?", "2: 'no', \"yes\"\n"]))
    write_settings(given, tmp_path / "a=b, ${c}", tmp_path / "worker.yaml")
    with initialize_config_dir(str(tmp_path), **DEFAULTS):
        composed = hydra_compose("worker", return_hydra_config=True)
    assert composed.hydra.run.dir == str(tmp_path / "a=b, ${c}")
    with open_dict(composed):
        del composed.hydra
    assert load(composed) == given


@pytest.fixture(scope="module")
def single(project: Path) -> Path:
    return alone(project, "single")


@pytest.fixture(scope="module")
def double(project: Path, single: Path) -> tuple[Path, str]:
    """Trained by two processes; and what they printed."""
    done = pair(project, "double")
    return project / "double", done.stdout + done.stderr


def test_two_processes_learn_what_one_does(single: Path, double: tuple[Path, str]) -> None:
    assert_same(double[0], single)
    assert report(double[0])["tokens"] == report(single)["tokens"]
    assert [report(out)["processes"] for out in (single, double[0])] == [1, 2]
    assert report(double[0])["fingerprint"] == report(single)["fingerprint"]


def test_one_of_them_speaks_for_both(double: tuple[Path, str]) -> None:
    steps = re.findall(r"^step (\d)/6 ", double[1], re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5", "6"]
    for once in ("plan:", "fingerprint", "validation: 8 conversations"):
        assert double[1].count(once) == 1
    assert "arning" not in double[1]


def test_a_checkpoint_holds_the_part_of_each(project: Path, double: tuple[Path, str]) -> None:
    for mark in project.glob(".double/*/checkpoint-*/complete.json"):
        files = json.loads(mark.read_text())["files"]
        assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "trainer_state.json"} <= files.keys()
    assert newest(project, "double") == 6


def test_one_process_goes_on_from_two(project: Path, single: Path, double: tuple[Path, str]) -> None:
    copied(project, "double", "fewer")
    out = alone(project, "fewer")
    assert_same(out, single)
    assert report(out)["sessions"] == 2


def test_two_processes_of_torchruns_go_on_from_one_and_start_none(project: Path, single: Path) -> None:
    copied(project, "single", "outer")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = [*torchrun, *command("outer", "runtime.processes=2")]
    done = subprocess.run(line, cwd=project, env=environment(), capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("resuming from ") == 1
    assert re.findall(r"^step (\d)/6 ", done.stdout, re.MULTILINE) == ["4", "5", "6"]
    assert report(project / "outer")["processes"] == 2
    assert_same(project / "outer", single)


def test_asked_to_stop_they_save_and_any_number_goes_on(project: Path) -> None:
    with started(project, "stopped") as (launcher, workers, log):
        # As a manager does that asks each process itself; the launcher hands its request on as well.
        for process in (*workers, launcher):
            os.kill(process.pid, signal.SIGTERM)
        assert launcher.wait(LONGEST) == 75
        assert not any(worker.is_running() for worker in workers)
    step = newest(project, "stopped")
    assert one_line(log.read_text()) == (
        f"train: SIGTERM: resumable at step {step}; the same command goes on from there"
    )
    out = alone(project, "stopped", *ENDLESS, f"train.stop_step={step + 1}")
    assert report(out)["steps"] == step + 1
    assert report(out)["sessions"] == 2


def test_a_schedulers_warning_to_all_of_them_is_one_request(project: Path) -> None:
    with started(project, "warned") as (launcher, workers, log):
        for process in (*workers, launcher):
            os.kill(process.pid, signal.SIGUSR1)
        assert launcher.wait(LONGEST) == 75
    assert one_line(log.read_text()).startswith("train: SIGUSR1: resumable at step ")


def test_a_second_request_ends_them_at_once(project: Path) -> None:
    with started(project, "twice") as (launcher, workers, log):
        for worker in workers:
            worker.suspend()  # so that the first does not end them before
        launcher.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(LONGEST) == -signal.SIGTERM
        assert not any(worker.is_running() for worker in workers)
    assert newest(project, "twice") == 0
    assert "train: SIGTERM" not in log.read_text()


def test_without_their_launcher_they_save_and_end(project: Path) -> None:
    with started(project, "orphaned") as (launcher, workers, log):
        launcher.kill()
        until(lambda: not any(worker.is_running() for worker in workers))
    step = newest(project, "orphaned")
    assert one_line(log.read_text()) == (
        f"train: the launcher is gone: resumable at step {step}; the same command goes on from there"
    )


def test_when_one_is_killed_all_end_with_its_line(project: Path) -> None:
    with started(project, "halved") as (launcher, workers, log):
        workers[1].kill()
        assert launcher.wait(LONGEST) == 1
        assert not any(worker.is_running() for worker in workers)
    killed = "process 1 of 2 was ended by SIGKILL; the same command goes on from the newest checkpoint"
    assert one_line(log.read_text()) == f"train: {killed}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("train.max_length=9",), "train: no train row has an assistant token within train.max_length 9; raise it"),
        (("train.weight_decay=1e30",), "train: training diverged at step "),
        (("runtime.processes=0",), "train: runtime.processes is 0; it may be at least 1"),
        (("runtime.processes=some",), "train: runtime.processes is 'some'; it must be a whole number or auto"),
    ],
)
def test_what_is_wrong_is_said_once(project: Path, overrides: tuple[str, ...], said: str) -> None:
    done = pair(project, "wrong", *overrides, status=1)
    assert one_line(done.stdout + done.stderr).startswith(said)
    assert not (project / "wrong/models").exists()


def test_whole_models_are_shared_out_and_saved_whole(project: Path) -> None:
    expected = alone(project, "full", *FULL)
    pair(project, "shards", *FULL)
    assert_same(project / "shards", expected, MODEL)
    for key in ("trainable_parameters", "best_step"):
        assert report(project / "shards")[key] == report(expected)[key]
    assert report(expected)["best_step"] == 3
    copied(project, "shards", "joined")
    assert_same(alone(project, "joined", *FULL), expected, MODEL)
    copied(project, "full", "shared")
    pair(project, "shared", *FULL)
    assert_same(project / "shared", expected, MODEL)
