"""Jobs of a sweep on a Ray cluster whose machines share the repository's disk.

Hydra's own launcher for Ray stops to wait for the other jobs when one has failed, has no working folder on other
machines, and asks for an older cloudpickle than MLflow.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

HANDED_ON = ("HF_", "MLFLOW_", "TUNESMITH_")  # variables, by how they begin


class Ray(Launcher):
    """Runs each job as a task of Ray; its keys are those of conf/hydra/launcher/ray_cluster.yaml."""

    def __init__(self, init: DictConfig, remote: DictConfig) -> None:
        """With the arguments of `ray.init`, and what a task asks for."""
        self.init: Any = OmegaConf.to_container(init, resolve=True)
        self.remote: Any = OmegaConf.to_container(remote, resolve=True)
        self.context: HydraContext
        self.task: TaskFunction
        self.config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what jobs are made of."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs until all have ended, and raise what one of them was lost by."""
        ray = self.connected()
        run = ray.remote(**self.remote)(run_there)
        environment = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
        shared = ray.put((self.context, self.task, Singleton.get_state()))
        jobs = [
            run.remote(Path.cwd(), environment, shared, self.composed(overrides, initial_job_idx + index))
            for index, overrides in enumerate(job_overrides)
        ]
        returned, lost = [], []
        for job in jobs:
            try:
                returned.append(ray.get(job))
            except ray.exceptions.RayError as error:
                lost.append(error)
        if lost:
            raise lost[0]
        return returned

    def connected(self) -> Any:
        """Return Ray, connected to its cluster.

        Raises:
            UserError: it is not installed, or there is none.
        """
        from common.errors import UserError

        try:
            import ray
        except ImportError as error:
            raise UserError(
                "hydra/launcher=ray_cluster needs Ray: .venv/bin/pip install -c constraints.txt '.[ray]'"
            ) from error
        if not ray.is_initialized():
            handler = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(**self.init)
            except (ConnectionError, RuntimeError, ValueError) as error:
                why = " ".join(str(error).split())
                raise UserError(f"no Ray cluster: {why}; start one with `ray start --head`") from error
            signal.signal(signal.SIGTERM, handler)  # which Ray takes for itself
        return ray

    def composed(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the configuration of a job."""
        config: DictConfig = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config


def run_there(
    folder: Path, environment: dict[str, str], shared: tuple[HydraContext, TaskFunction, Any], config: DictConfig
) -> JobReturn:
    """Run a job in a worker of Ray, as if in the sweep's folder and environment."""
    from pipeline.workers.process import set_environment

    os.chdir(folder)
    os.environ.update(environment)
    set_environment()
    context, task, singletons = shared
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
