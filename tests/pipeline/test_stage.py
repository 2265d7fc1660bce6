"""How a stage ends: its line on stderr and its exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
STAGE = """
import hydra
from pipeline.errors import Interrupted, UserError
from pipeline.stage import stage

@hydra.main(version_base="1.3", config_path="{conf}", config_name="config")
@stage
def main(config, out):
    print("job", config.train.seed, flush=True)
    raise {error}

main()
"""


def ended(folder: Path, error: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = folder / "tried.py"
    script.write_text(STAGE.format(conf=REPO / "conf", error=error))
    command = [sys.executable, str(script), *arguments, f"hydra.run.dir={folder}", "tracking=none"]
    settings = os.environ | {"PYTHONPATH": str(REPO)} | environment
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("UserError('data is missing; fetch it')", 1, "tried: data is missing; fetch it"),
        ("Interrupted('SIGTERM: resumable at step 7')", 75, "tried: SIGTERM: resumable at step 7"),
        ("KeyboardInterrupt", 128 + signal.SIGINT, "tried: interrupted"),
    ],
)
def test_what_users_should_know_is_one_line(tmp_path: Path, error: str, status: int, said: str) -> None:
    done = ended(tmp_path, error)
    assert (done.returncode, done.stderr.splitlines()) == (status, [said])


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    done = ended(tmp_path, "ValueError('a defect')", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "ValueError: a defect"


def test_a_job_that_fails_does_not_end_a_sweep_and_a_request_to_stop_does(tmp_path: Path) -> None:
    sweep = ("-m", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    failed = ended(tmp_path, "UserError('data is missing')", *sweep)
    assert [line for line in failed.stdout.splitlines() if line.startswith("job")] == ["job 1", "job 2"]
    assert failed.returncode == 1
    stopped = ended(tmp_path, "Interrupted('SIGTERM: resumable at step 7')", *sweep)
    assert [line for line in stopped.stdout.splitlines() if line.startswith("job")] == ["job 1"]
    assert stopped.returncode == 75


def test_a_stage_whose_dvc_is_gone_does_not_begin(tmp_path: Path) -> None:
    # Its parent is in another session, as init and supervisors are.
    done = subprocess.run(
        [sys.executable, "-c", "import pipeline; print('begun')"],
        cwd=REPO, env=os.environ | {"DVC_STAGE": "train"}, start_new_session=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "the DVC that started this stage is gone\n")
