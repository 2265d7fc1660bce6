"""How each launcher is run, so that no job of it loses another one.

joblib's kills all workers when one dies, and submitit's stops to wait for jobs when one has failed. The first runs jobs
that have died before one by one; the second is called for each job by itself.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

JOBLIB, SUBMITIT = "hydra_plugins.hydra_joblib_launcher", "hydra_plugins.hydra_submitit_launcher"

Jobs = Sequence[Sequence[str]]
_numbers = count()  # of jobs, which name them in a process


def launch(launcher: Launcher, jobs: Jobs, config: DictConfig, again: bool) -> None:
    """Run jobs and return once all have ended.

    Args:
        launcher: Hydra's.
        jobs: the overrides of each.
        config: of the sweep.
        again: the process of each has died before.

    Raises:
        UserError: there are more workers than GPUs.
        Exception: the launcher's, of a job that it could not run.
    """
    module = type(launcher).__module__
    if module.startswith(JOBLIB):
        refuse_more_workers_than_gpus(config)
        for some in [[job] for job in jobs] if again else [jobs]:
            launcher.launch(some, initial_job_idx=next(_numbers))
    elif module.startswith(SUBMITIT):
        each_by_itself(launcher, jobs, config)
    else:
        launcher.launch(jobs, initial_job_idx=next(_numbers))


def each_by_itself(launcher: Launcher, jobs: Jobs, config: DictConfig) -> None:
    """Run jobs by a call each, several at once.

    Raises:
        MachineError: a job could not be queued.
    """
    from submitit.core.utils import FailedJobError

    from common.errors import MachineError

    local = config.hydra.launcher._target_.endswith("LocalLauncher")
    at_once = local_jobs(config) if local else config.hydra.launcher.array_parallelism
    with local_environment(at_once if local else 0), ThreadPoolExecutor(at_once, "launch") as pool:
        waiting = [pool.submit(launcher.launch, [job], initial_job_idx=next(_numbers)) for job in jobs]
        errors = [each.exception() for each in waiting]
    for error in filter(None, errors):
        if isinstance(error, FailedJobError | RuntimeError):  # sbatch's reason, or that there is none
            why = " ".join(str(error).split())[:500]
            raise MachineError(f"{why}; conf/hydra/launcher/ has what a job asks for") from error
        raise error


def local_jobs(config: DictConfig) -> int:
    """Return how many jobs run on this machine at once where nothing else says so: one for each GPU, or CPU."""
    return gpu_jobs(config) or len(os.sched_getaffinity(0))


def gpu_jobs(config: DictConfig) -> int:
    """Return how many jobs have a GPU of this machine at once; 0 where there is none."""
    from pipeline.workers.gpus import VISIBLE, installed_gpus, visible_gpus

    gpus = visible_gpus(os.environ.get(VISIBLE), installed_gpus()) if config.runtime.device != "cpu" else []
    return len(gpus) * config.runtime.jobs_per_gpu


@contextmanager
def local_environment(at_once: int) -> Iterator[None]:
    """Have jobs on this machine see the GPUs that are seen here, and take their share of its CPUs."""
    if not at_once:
        yield
        return
    from pipeline.workers.gpus import note_seen

    before = dict(os.environ)
    note_seen()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // at_once)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def refuse_more_workers_than_gpus(config: DictConfig) -> None:
    """Check joblib's number of workers.

    Raises:
        UserError: some would have no GPU.
    """
    from joblib import effective_n_jobs

    from common.errors import UserError

    wanted, room = effective_n_jobs(config.hydra.launcher.n_jobs), gpu_jobs(config)
    if room and wanted > room:
        given = f"hydra.launcher.n_jobs is {config.hydra.launcher.n_jobs}, which makes {wanted} workers"
        raise UserError(
            f"{given}; there are GPUs for {room}: take {room}, or let more share one by runtime.jobs_per_gpu"
        )
