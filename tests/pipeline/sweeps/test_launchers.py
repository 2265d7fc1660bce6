"""Sweeps whose jobs run in other processes, by real launchers: the same ranking as in one process, and no orphan.

The jobs are small trainings of starter-s. Slurm is not at hand: what its launcher is given is what is tested, and what
a job does when it is preempted. Ray is tried by ray_nodes.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from submitit.core.utils import FailedJobError

from common.errors import Interrupted, MachineError, UserError
from hydra_plugins.halving import launching
from hydra_plugins.halving.launching import refuse_more_workers_than_gpus
from pipeline.core.composition import CONF, compose
from pipeline.sweeps import requeue
from pipeline.workers import gpus
from pipeline.workers.parent import ORPHANED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks and signals as Linux has them")

REPO = Path(__file__).parents[3]
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
LOCAL = ("hydra/launcher=submitit_local",)
SHORT = ("hydra.sweeper.min_steps=2", "hydra.sweeper.max_steps=4", "train.lr=1e-3,2e-3,4e-3")
LONG = ("hydra.sweeper.min_steps=20", "hydra.sweeper.max_steps=40", "train.lr=1e-3,2e-3", "train.save_steps=4")
WAIT = 240


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with prepared data; the code and conf/ are the repository's."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("common", "hydra_plugins", "llama", "pipeline", "starter"):
        (folder / name).symlink_to(REPO / name)
    subprocess.run(["cp", "-r", str(REPO / CONF), str(folder / CONF)], check=True)
    (folder / "data/raw").mkdir(parents=True)
    prepare = [sys.executable, "-m", "pipeline.stages.prepare", "model=starter-s"]
    subprocess.run(prepare, cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def command(name: str, *overrides: str) -> list[str]:
    sweep = ["-m", "pipeline.stages.train", "-m", "hydra/sweeper=halving", "model=starter-s"]
    return [sys.executable, *sweep, f"hydra.sweeper.name={name}", *overrides]


def swept(project: Path, name: str, *overrides: str) -> dict[str, float]:
    """Runs a sweep to its end and returns the losses of its jobs."""
    done = subprocess.run(
        command(name, *overrides), cwd=project, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return losses(project, name)


def losses(project: Path, name: str) -> dict[str, float]:
    sweep = project / "sweeps" / name
    found = {str(path.parent.relative_to(sweep)): json.loads(path.read_text()) for path in sweep.rglob("outcome.json")}
    return {job: outcome["validation_loss"] for job, outcome in found.items()}


@pytest.fixture(scope="module")
def alone(project: Path) -> dict[str, float]:
    return swept(project, "alone", *SHORT)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "launcher"), [("joblib", JOBLIB), ("local", LOCAL)])
def test_other_processes_come_to_the_same_losses(
    name: str, launcher: tuple[str, ...], project: Path, alone: dict[str, float]
) -> None:
    assert swept(project, name, *SHORT, *launcher) == alone
    assert set(alone) == {"0/step-2", "1/step-2", "2/step-2", "2/step-4"}


@pytest.mark.slow
def test_a_plain_grid_runs_in_workers(project: Path) -> None:
    steps = ("hydra/sweeper=grid", "train.lr=1e-3,2e-3", "train.max_steps=2", "tracking=none")
    assert swept(project, "grid-joblib", *steps, *JOBLIB) == swept(project, "grid-alone", *steps)


@contextmanager
def training(project: Path, name: str, *overrides: str) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a sweep of two long trials, and goes on when both have a checkpoint."""
    log = (project / f"{name}.log").open("ab")
    with subprocess.Popen(
        command(name, *LONG, "tracking=none", *overrides),
        cwd=project,
        env=environment(),
        stdout=log,
        stderr=log,
        start_new_session=True,
    ) as sweep:
        checkpoints = project / ".checkpoints/sweeps" / name
        until(lambda: sweep.poll() is not None or len({path.parent for path in checkpoints.glob("*/check*-*")}) == 2)
        assert sweep.poll() is None, Path(log.name).read_text()
        yield sweep


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number", "status"),
    [
        (JOBLIB, signal.SIGKILL, -9),
        (JOBLIB, signal.SIGTERM, 75),
        pytest.param(JOBLIB, signal.SIGINT, 75, marks=pytest.mark.long),
        pytest.param(LOCAL, signal.SIGKILL, -9, marks=pytest.mark.long),
    ],
)
def test_no_job_outlives_its_sweep_and_each_saves_first(
    launcher: tuple[str, ...], number: int, status: int, project: Path
) -> None:
    name = f"{launcher[0].partition('=')[2]}-{number}"
    with training(project, name, *launcher) as sweep:
        jobs = below(sweep)
        (os.killpg if number == signal.SIGINT else os.kill)(sweep.pid, number)  # Ctrl-C reaches all of a terminal
        assert sweep.wait(WAIT) == status
        until(lambda: gone(jobs))
    for outcome in (project / "sweeps" / name).rglob("outcome.json"):
        assert "resumable at step" in json.loads(outcome.read_text())["reason"]
    swept(project, name, *LONG, "tracking=none", *launcher)
    logs = [path.read_text() for path in (project / "sweeps" / name).glob("*/step-20/log.txt")]
    assert len(logs) == 2
    assert all("resuming from" in log for log in logs)


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_trial(project: Path) -> None:
    with training(project, "killed", *JOBLIB) as sweep:
        max(below(sweep), key=lambda each: each.memory_info().rss).kill()
        assert sweep.wait(WAIT) == 0
    assert set(losses(project, "killed")) == {"0/step-20", "1/step-20", "1/step-40"}


def config(*overrides: str) -> DictConfig:
    Plugins.instance()  # which know the launchers' keys
    from hydra import compose as composed
    from hydra import initialize_config_dir

    with initialize_config_dir(str(REPO / CONF), version_base=None):
        return composed("config", overrides=list(overrides), return_hydra_config=True)


@pytest.mark.parametrize(
    ("jobs", "room", "fits"), [(2, ("0", "1"), True), (3, ("0", "1"), False), (-1, ("0",), False), (-1, (), True)]
)
def test_more_workers_than_gpus_are_refused_with_the_number_to_take(
    jobs: int, room: tuple[str, ...], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "installed_gpus", lambda: [f"GPU-{card}" for card in room])
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr("joblib.effective_n_jobs", lambda wanted: 4 if wanted == -1 else wanted)
    composed = config("hydra/launcher=joblib", f"hydra.launcher.n_jobs={jobs}")
    if fits:
        refuse_more_workers_than_gpus(composed)
        return
    with pytest.raises(UserError, match=rf"n_jobs is {jobs}, .*; there are GPUs for {len(room)}: take {len(room)}, or"):
        refuse_more_workers_than_gpus(composed)


def test_several_workers_share_a_gpu_where_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "installed_gpus", lambda: ["GPU-a"])
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    refuse_more_workers_than_gpus(config("hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "runtime.jobs_per_gpu=3"))


def test_as_many_local_jobs_run_at_once_as_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "installed_gpus", lambda: ["GPU-a", "GPU-b", "GPU-c"])
    assert launching.local_jobs(config("runtime.jobs_per_gpu=2")) == 6
    assert launching.local_jobs(config("runtime.device=cpu")) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("error", [FailedJobError("sbatch: error:\n invalid partition"), RuntimeError("no Slurm here")])
def test_what_cannot_be_queued_is_one_line(error: Exception) -> None:
    class Refused(Launcher):
        def setup(self, **_: object) -> None: ...

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            raise error

    with pytest.raises(MachineError, match=r"^(sbatch: error: invalid partition|no Slurm here); conf/hydra/launcher/"):
        launching.each_by_itself(Refused(), [["train.lr=1"]], config("runtime=slurm"))


@pytest.mark.parametrize("runtime", ["slurm", "ray"])
def test_a_runtime_brings_its_launcher_where_none_is_named(runtime: str) -> None:
    assert runtime in config(f"runtime={runtime}").hydra.launcher._target_.lower()
    assert "joblib" in config(f"runtime={runtime}", "hydra/launcher=joblib").hydra.launcher._target_
    assert compose(REPO / CONF, [f"runtime={runtime}"]).runtime.processes == 1


def test_slurm_is_asked_for_what_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from submitit import AutoExecutor

    srun = tmp_path / "srun"  # looked for, and not run: the script alone is made
    srun.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    given = ("partition=gpu", "gpus_per_node=2", "mem_gb=64", "timeout_min=90", "max_num_timeout=3")
    chosen = config("runtime=slurm", *(f"hydra.launcher.{each}" for each in given))
    launcher = Plugins.instance()._instantiate(chosen.hydra.launcher)
    executor = AutoExecutor(folder=tmp_path, cluster="slurm", slurm_max_num_timeout=launcher.params["max_num_timeout"])
    shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
    executor.update_parameters(
        **{
            key if key in shared else f"slurm_{key}": value
            for key, value in launcher.params.items()
            if key not in ("submitit_folder", "max_num_timeout")
        }
    )
    script = executor._executor._make_submission_file_text("run", "1")
    for line in ("partition=gpu", "gpus-per-node=2", "mem=64GB", "time=90", "signal=USR2@120", "cpus-per-task=8"):
        assert f"#SBATCH --{line}\n" in script


def preempted(number: int) -> None:
    with requeue.saved_before_requeue():
        os.kill(os.getpid(), number)
        time.sleep(WAIT)


def test_a_preempted_job_saves_before_it_is_queued_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    happened: list[str] = []
    number = signal.SIGUSR2
    before = signal.signal(number, lambda *_: happened.append("queued again"))

    def save(number: int, frame: object) -> None:
        happened.append("saved")
        raise Interrupted("SIGUSR1: resumable at step 7")

    trains = signal.signal(ORPHANED, save)
    try:
        with pytest.raises(Interrupted):
            preempted(number)
    finally:
        signal.signal(ORPHANED, trains)
        signal.signal(number, before)
    assert happened == ["saved", "queued again"]


def test_a_job_that_trains_nothing_yet_is_queued_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    happened: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: happened.append("queued again"))
    try:
        with requeue.saved_before_requeue():
            os.kill(os.getpid(), signal.SIGUSR2)
            assert happened == ["queued again"]
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert happened == ["queued again"]
