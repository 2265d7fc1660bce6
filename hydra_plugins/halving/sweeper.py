"""The sweeper: what Hydra hands to it, handed on to `pipeline.sweeps`.

Hydra imports this at each start of a stage; what a sweep needs is imported when there is one.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_plugins.halving.launching import launch

# How a sweep runs, and not what it is.
OF_LAUNCHERS = ("hydra/launcher", "hydra.launcher.", "hydra.sweep.", "hydra.job.", "hydra.mode", "runtime", "tracking")


class Halving(Sweeper):
    """Runs a sweep; its keys are those of conf/hydra/sweeper, read by pipeline/sweeps/settings.py."""

    def __init__(self, params: DictConfig | None = None, **settings: Any) -> None:
        """With the space of a preset, as Hydra's own sweeper has it, and the settings."""
        self.params = dict(params or {})
        self.settings = {key: plain(value) for key, value in settings.items()}
        self.hydra_context: HydraContext
        self.config: DictConfig
        self.launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Name the sweep where its user has not, and take the launcher that the configuration names."""
        self.hydra_context, self.config = hydra_context, config
        overrides = OmegaConf.to_container(config.hydra.overrides, resolve=False)  # one may be an interpolation
        arguments = [*overrides["task"], *overrides["hydra"]]
        arguments += [
            f"--config-dir={source.path}"
            for source in config.hydra.runtime.config_sources
            if source.provider == "command-line"
        ]
        self.arguments = tuple(argument for argument in arguments if not argument.startswith("hydra.mode"))
        with read_write(config), open_dict(config):
            if config.hydra.sweeper.name is None:
                own = [argument for argument in self.arguments if not argument.startswith(OF_LAUNCHERS)]
                digest = hashlib.sha256(json.dumps(own).encode()).hexdigest()
                config.hydra.sweeper.name = name = f"{config.hydra.job.name}-{digest[:6]}"
                config.hydra.overrides.hydra.append(f"hydra.sweeper.name={name}")  # with which jobs are composed
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep; `arguments` are the overrides of the command line."""
        from common.logs import configure_logs
        from pipeline.sweeps.main import sweep
        from pipeline.sweeps.plan import Request
        from pipeline.sweeps.settings import read_settings

        configure_logs(0)
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        hydra = self.config.hydra
        request = Request(
            name=hydra.sweeper.name,
            stage=hydra.job.name,
            arguments=self.arguments,
            overrides=parser.parse_overrides(given),
            settings=read_settings(self.settings),
            compose=self.compose,
        )
        sweep(request, Path(hydra.sweep.dir), self.launch)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return what a job's overrides compose to, without Hydra's part."""
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        return composed

    def launch(self, jobs: Sequence[Sequence[str]], again: bool) -> None:
        """Have the launcher run jobs, and wait for them; how they ended stands in their folders."""
        for package in ("hydra", "hydra_plugins"):
            logging.getLogger(package).setLevel(logging.WARNING)  # a line for each job, beside our table
        handlers = logging.root.handlers[:]
        launch(self.launcher, jobs, self.config, again)
        logging.root.handlers[:] = handlers  # some launchers put Hydra's own in their place


def plain(value: Any) -> Any:
    """Return a setting as a dictionary, a list or a plain value."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
