"""How a stage ends: its line on stderr and its exit status."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.adopted import Adopted, write

REPO = Path(__file__).parents[3]
STAGE = """
from common.errors import Interrupted, UserError
from pipeline.stages.run import stage

def run(config, out):
    print("job", config.train.seed, flush=True)
    raise {error}

stage(run)()
"""


BEGIN = "from pipeline.workers.process import prepare_process; prepare_process(); print('begun')"


def ended(
    folder: Path, error: str, *arguments: str, conf: Path = REPO / "conf", before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    script = folder / "tried.py"
    script.write_text(before + STAGE.format(error=error))
    command = [
        sys.executable,
        str(script),
        "--config-path",
        str(conf),
        *arguments,
        f"hydra.run.dir={folder}",
        "tracking=none",
    ]
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


@pytest.mark.parametrize("override", ["sweep=grid", "hydra/sweeper=halving", "hydra.sweeper.name=mine"])
def test_what_a_sweep_is_told_is_refused_without_one(tmp_path: Path, override: str) -> None:
    done = ended(tmp_path, "AssertionError", override)
    said = f"tried: {override} is a sweep's, which -m begins; add it, or leave this out\n"
    assert (done.returncode, done.stderr, done.stdout) == (1, said, "")


REFUSED = [
    ("train.max_stepz=5", r"train\.max_stepz is not a key of the configuration; train has .*\bmax_steps\b.*"),
    ("foo=1", r"foo is not a key of the configuration; it has model, learn, data, .*"),
    ("+foo=1", r"foo is not a key of the configuration; it has model, learn, data, .*"),
    ("train.lr.x=1", r"train\.lr\.x is not a key of the configuration; train\.lr has no keys"),
    ("train.max_steps=abc", r"train\.max_steps is 'abc'; it must be a whole number"),
    ("train.lr=${nowhere}", r"the configuration does not resolve: Interpolation key 'nowhere' not found.*"),
    ("model=nope", r"In 'config': Could not find 'model/nope'; there is .*, starter-m, starter-s"),
    ("recipe=null", r"Config group override must be a string or a list\. Got NoneType"),
    ("train.lr=[1", r"train\.lr=\[1 cannot be read as KEY=VALUE: no viable alternative at input '\[1'"),
    ("hydra.foo=1", r"Could not override 'hydra\.foo'.*"),
]


@pytest.mark.parametrize(("override", "said"), REFUSED, ids=[override for override, _ in REFUSED])
def test_what_hydra_cannot_use_is_one_line_also_in_a_sweep(tmp_path: Path, override: str, said: str) -> None:
    alone = ended(tmp_path, "SystemExit(0)", override)
    sweep = ended(tmp_path, "SystemExit(0)", "-m", override, f"hydra.sweep.dir={tmp_path}/sweep")
    for done in (alone, sweep):
        lines = [line for line in done.stderr.splitlines() if line.startswith("tried: ")]
        assert done.returncode == 1
        assert [bool(re.fullmatch(f"tried: (.+: )?{said}", line)) for line in lines] == [True], done.stderr
        assert "Traceback" not in done.stderr
        assert "HYDRA_FULL_ERROR" not in done.stderr


def test_a_second_request_while_a_sweep_ends_is_one_line(tmp_path: Path) -> None:
    """As Ctrl-C twice: the second one comes while MLflow still waits for what the first one's job had to say."""
    hurried = (
        "import contextlib; from pipeline.sweeps import main as sweeps; own = sweeps.parent_run\n"
        "@contextlib.contextmanager\n"
        "def parent_run(*given):\n"
        "    with own(*given) as run:\n"
        "        try: yield run\n"
        "        finally: raise KeyboardInterrupt\n"
        "sweeps.parent_run = parent_run\n"
    )
    sweep = ("-m", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    done = ended(tmp_path, "Interrupted('SIGINT: resumable at step 7')", *sweep, before=hurried)
    said = [line for line in done.stderr.splitlines() if line]
    assert (done.returncode, said) == (75, ["tried: SIGINT: resumable at step 7", "tried: interrupted"])


def test_each_job_of_a_sweep_that_fails_says_why(tmp_path: Path) -> None:
    sweep = ("-m", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    done = ended(tmp_path, "UserError(f'no data for {config.train.seed}')", *sweep)
    said = [line for line in done.stderr.splitlines() if line.startswith("tried: ")]
    assert said == [
        "tried: train.seed=1: no data for 1",
        "tried: train.seed=2: no data for 2",
        "tried: 2 of 2 trials failed",
    ]
    assert "Traceback" not in done.stderr


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    done = ended(tmp_path, "ValueError('a defect')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "ValueError: a defect"


def test_a_job_that_fails_does_not_end_a_sweep_and_a_request_to_stop_does(tmp_path: Path) -> None:
    failed = ended(
        tmp_path, "UserError('data is missing')", "-m", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/failed"
    )
    assert output(tmp_path / "failed") == {"0": "job 1\ndata is missing\n", "1": "job 2\ndata is missing\n"}
    assert failed.returncode == 1
    asked = "Interrupted('SIGTERM: resumable at step 7')"
    stopped = ended(tmp_path, asked, "-m", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/stopped")
    assert output(tmp_path / "stopped") == {"0": "job 1\nstopped: SIGTERM: resumable at step 7\n"}
    assert stopped.returncode == 75


def output(sweep: Path) -> dict[str, str]:
    """What the jobs of a sweep have printed, by job."""
    return {log.parent.name: log.read_text() for log in sorted(sweep.glob("*/log.txt"))}


def test_a_direct_run_writes_where_it_is_started_and_leaves_no_folders_of_hydras(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.stages.prepare", "data.files=[chats.jsonl]", "data.questions=null"]
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "chats.jsonl").write_text("".join(lines[:60]), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chats.jsonl", "data", "reports"]
    assert (tmp_path / "data/prepared/train.parquet").is_file()
    assert (tmp_path / "data/forgetting/statements.jsonl").is_file()  # of which the texts ship


@pytest.fixture
def adopted(tmp_path: Path) -> Path:
    """A copy of conf/ in which a model is adopted."""
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    write(tmp_path / "conf", Adopted({"model": "llama-3.2-3b"}, {}))
    return tmp_path / "conf"


def meetings(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if "adopted" in line]


def test_a_direct_run_says_what_its_experiment_overrides(tmp_path: Path, adopted: Path) -> None:
    done = ended(tmp_path, "UserError('no data')", "experiment=r5", conf=adopted)
    assert meetings(done) == ["experiment=r5 overrides adopted model=llama-3.2-3b"]
    assert meetings(ended(tmp_path, "UserError('no data')", conf=adopted)) == []


def test_a_sweep_says_it_once_for_each_experiment(tmp_path: Path, adopted: Path) -> None:
    sweep = ("-m", "experiment=r2-3b,r5", "train.seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep")
    done = ended(tmp_path, "UserError('no data')", *sweep, conf=adopted)
    assert [said.split("\n")[0] for said in output(tmp_path / "sweep").values()] == ["job 1", "job 2"] * 2
    assert meetings(done) == [
        "experiment=r2-3b leaves adopted model=llama-3.2-3b",
        "experiment=r5 overrides adopted model=llama-3.2-3b",
    ]
    files = sorted(path.name for path in (tmp_path / "sweep/0").iterdir())
    assert files == [".hydra", "lock", "log.txt", "outcome.json", "task.json"]


@pytest.mark.parametrize(("error", "status"), [("UserError('gone')", "1"), ("Interrupted('asked')", "75")])
def test_a_stage_that_fails_leaves_its_status_for_who_started_dvc(tmp_path: Path, error: str, status: str) -> None:
    left = tmp_path / "status"
    assert str(ended(tmp_path, error, TUNESMITH_STATUS=str(left)).returncode) == status
    assert left.read_text() == status


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("echo 75 >$TUNESMITH_STATUS; exit 255", 75),
        ("exit 255", 255),
        ("exit 0", 0),
        ("echo 75 >$TUNESMITH_STATUS", 0),  # a later start in it went well
        ("trap 'exit 3' TERM; kill -TERM 0; sleep 9", 3),  # as `docker stop` reaches all
    ],
)
def test_the_train_images_commands_end_as_their_stage_did(command: str, status: int) -> None:
    script = REPO / "scripts/as_its_stage.sh"
    assert subprocess.run([script, "sh", "-c", command], start_new_session=True, timeout=60).returncode == status


def test_a_stage_in_a_container_ends_when_its_input_does(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPO), "TUNESMITH_HELD": "1"}
    waiting = [sys.executable, "-c", f"{BEGIN}; import sys, time; sys.stdout.flush(); time.sleep(60)"]
    with subprocess.Popen(waiting, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        assert held.stdout.readline() == b"begun\n"
        held.stdin.close()
        assert held.wait(30) == -signal.SIGUSR1
    late = subprocess.run(waiting, env=environment, input=b"", capture_output=True)
    assert (late.returncode, late.stdout, late.stderr) == (1, b"", b"who started this container is gone\n")


def test_a_stage_whose_dvc_is_gone_does_not_begin(tmp_path: Path) -> None:
    # Its parent is in another session, as init and supervisors are.
    done = subprocess.run(
        [sys.executable, "-c", BEGIN],
        cwd=REPO, env=os.environ | {"DVC_STAGE": "train"}, start_new_session=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "the DVC that started this stage is gone\n")
