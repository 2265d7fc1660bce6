"""A job of a sweep: what it leaves of how it ended, and what is no fault of its own."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import Hopeless, MachineError, UserError
from pipeline.core.trials import LOG, OUTCOME, Outcome, Task
from pipeline.sweeps import job
from pipeline.sweeps.job import ended, output_in


def raising(error: Exception) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (UserError("the GPU's memory is full"), "failed", "the GPU's memory is full"),
        (ValueError("a\ndefect"), "failed", "ValueError: a defect"),
        (Hopeless("diverged: loss nan"), "ended", "diverged: loss nan"),
    ],
)
def test_what_goes_wrong_with_a_trial_is_its_outcome(
    tmp_path: Path, error: Exception, status: str, reason: str
) -> None:
    outcome = ended(raising(error), tmp_path)
    assert (outcome.status, outcome.reason) == (status, reason)


@pytest.mark.parametrize(
    "error",
    [
        MachineError("cannot write x: No space left on device"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError(f"the archive cannot be written ({os.strerror(errno.EROFS)})"),
    ],
)
def test_a_disk_that_refuses_is_no_fault_of_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(job, "runs_here", lambda: True)
    with pytest.raises(MachineError, match="cannot write"):
        ended(raising(error), tmp_path)
    assert Outcome.read(tmp_path / OUTCOME).status == "stopped"


def test_all_that_is_said_in_a_job_goes_to_its_file_and_later_words_do_not(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from pipeline.sweeps.job import output_in\n"
        "print('before')\n"
        f"with output_in(Path({str(tmp_path / LOG)!r})):\n"
        "    print('printed'); print('error', file=sys.stderr)\n"
        "    os.write(1, b'written\\n'); subprocess.run(['echo', 'echoed'])\n"
        "print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "")
    assert sorted((tmp_path / LOG).read_text().split()) == ["echoed", "error", "printed", "written"]


def test_a_job_that_goes_on_adds_to_its_file(tmp_path: Path) -> None:
    for word in (b"one ", b"two"):
        with output_in(tmp_path / LOG):
            os.write(1, word)
    assert (tmp_path / LOG).read_text() == "one two"


def test_a_task_is_told_by_its_file(tmp_path: Path) -> None:
    assert not job.is_trial(tmp_path)
    task = Task(trial=1, sweep=str(tmp_path), stop_step=4, mlflow_parent=None, worst=None)
    task.write(tmp_path / "task.json")
    assert job.is_trial(tmp_path)
