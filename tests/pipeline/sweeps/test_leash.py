"""A sweep's hold on its jobs: by locks, between real processes."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import Interrupted, MachineError
from pipeline.core.trials import OUTCOME, TASK, Outcome, Task
from pipeline.sweeps.job import run_trial
from pipeline.sweeps.leash import LOCK, Leash, begun, holds
from pipeline.sweeps.main import alone_in
from pipeline.sweeps.record import SWEEP, Folder

HOLD = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
JOB = """
import signal, sys, threading
from pathlib import Path
from common.errors import Interrupted, MachineError
from pipeline.sweeps.job import run_trial
asked = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: asked.set())
def train():
    print("trains", file=sys.__stderr__, flush=True)
    asked.wait()
    raise Interrupted("SIGUSR1: resumable at step 7")
sys.__stderr__ = open(3, "w")
run_trial(train, Path(sys.argv[1]))
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The folder of a job; its sweep's is the one above."""
    folder = tmp_path / "0"
    folder.mkdir()
    (tmp_path / SWEEP).touch()
    (tmp_path / LOCK).touch()
    Task(trial=0, sweep=str(tmp_path), stop_step=2, mlflow_parent=None, worst=None).write(folder / TASK)
    return folder


def holder(path: Path) -> "subprocess.Popen[str]":
    """A process that holds a lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    return process


def never() -> None:
    raise AssertionError("it was run")


def test_a_killed_sweep_holds_no_longer(job: Path) -> None:
    with holder(job.parent / LOCK) as sweep:
        assert holds(job.parent)
        sweep.kill()
    assert not holds(job.parent)


def test_a_job_hears_that_its_sweep_was_killed_and_saves(job: Path) -> None:
    ours, theirs = os.pipe()
    with holder(job.parent / LOCK) as sweep:
        command = f"import os; os.dup2({theirs}, 3)\n{JOB}"
        with subprocess.Popen([sys.executable, "-c", command, str(job)], pass_fds=(theirs,)) as trial:
            assert os.read(ours, 7) == b"trains\n"
            sweep.kill()
            assert trial.wait(60) == 0
    outcome = Outcome.read(job / OUTCOME)
    assert (outcome.status, outcome.reason) == ("stopped", "SIGUSR1: resumable at step 7")
    assert not outcome.preempted


@pytest.fixture
def elsewhere(job: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is a worker of a sweep, but does not end with it."""
    monkeypatch.setattr("pipeline.sweeps.leash._watched", {job.parent})
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("elsewhere")
def test_a_job_of_a_sweep_that_is_gone_is_not_run(job: Path) -> None:
    run_trial(never, job)
    outcome = Outcome.read(job / OUTCOME)
    assert (outcome.status, outcome.reason, outcome.preempted) == (
        "stopped",
        "the sweep was asked to stop: the same command goes on",
        False,
    )


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("error", "preempted"),
    [
        (Interrupted("SIGTERM: resumable at step 7"), True),
        (Interrupted("the time limit: resumable at step 7"), False),
        (MachineError("cannot write: No space left on device"), False),
    ],
)
def test_a_job_is_preempted_by_a_signal_while_its_sweep_goes_on(error: Exception, preempted: bool, job: Path) -> None:
    def stop() -> None:
        raise error

    with holder(job.parent / LOCK) as sweep:
        run_trial(stop, job)
        sweep.kill()
    assert Outcome.read(job / OUTCOME).preempted == preempted


def test_of_two_processes_with_one_job_the_later_takes_what_the_first_has_made(job: Path) -> None:
    with alone_in(Folder(job.parent)) as lock, Leash(lock), (job / LOCK).open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)

        def finish() -> None:
            time.sleep(0.2)
            Outcome(status="finished", validation_loss=1.5).write(job / OUTCOME)
            first.close()

        other = threading.Thread(target=finish)
        other.start()
        assert run_trial(never, job) == 1.5
        other.join()


def test_when_a_job_was_begun_is_known(job: Path) -> None:
    assert begun(job) is None
    with alone_in(Folder(job.parent)) as lock, Leash(lock):
        run_trial(lambda: None, job)
    assert begun(job) is not None


def asked(leash: Leash, number: int, times: int) -> list[str]:
    """What is done in a block in which the sweep is asked to stop so often."""
    done: list[str] = []
    try:
        with leash.until_asked():
            for _ in range(times):
                os.kill(os.getpid(), number)
            done.append("waited for")
    except Interrupted as error:
        done.append(str(error))
    return done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_asked_to_stop_lets_go_and_waits_unless_asked_again(number: int, tmp_path: Path) -> None:
    name = signal.Signals(number).name
    (tmp_path / SWEEP).touch()
    with alone_in(Folder(tmp_path)) as lock, Leash(lock) as leash:
        assert holds(tmp_path)
        assert asked(leash, number, 1) == ["waited for", f"{name}: the same command goes on"]
        assert not holds(tmp_path)
    with alone_in(Folder(tmp_path)) as lock, Leash(lock) as leash:
        assert asked(leash, number, 2) == [f"{name}: the same command goes on"]
