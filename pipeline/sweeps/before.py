"""What is said and refused before a stage is run by hand, once or as a sweep.

A Hydra callback, named in conf/config.yaml; DVC's stages read params.yaml and have none. Launchers send it to other
processes, so it holds nothing.
"""

import re
import sys
from pathlib import Path
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from pipeline.core.adopted import meeting
from pipeline.core.config import load
from pipeline.core.data_settings import DataSettings
from pipeline.data.prepared import require_prepared
from pipeline.workers.ranks import rank

OF_SWEEPS = re.compile(r"[+~]*(sweep=|hydra[./](sweep|launcher))")
READ_PREPARED = ("train", "export", "evaluate")


class Before(Callback):
    """Says what experiments override; of a sweep, looks whether its data are prepared."""

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        """Have output go into the workspace, without the folder `.hydra` that jobs of a sweep have beside theirs."""
        refuse_settings_of_sweeps(config)
        with read_write(config):
            config.hydra.output_subdir = None
        if rank() == 0:
            say_meetings(config)

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Check the data that all jobs read; a configuration that is not valid is left for them to refuse."""
        say_meetings(config)
        try:
            settings = load(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
        except (UserError, OmegaConfBaseException):
            return
        check_data(config, settings.data)


def refuse_settings_of_sweeps(config: DictConfig) -> None:
    """End a stage that is told how it is to be swept over, and is run once."""
    given = [override for kind in ("hydra", "task") for override in config.hydra.overrides[kind]]
    for override in given:
        if OF_SWEEPS.match(override):
            sys.exit(f"{config.hydra.job.name}: {override} is a sweep's, which -m begins; add it, or leave this out")


def say_meetings(config: DictConfig) -> None:
    """Say for each experiment, of several in a sweep, what it overrides of what is adopted."""
    sources = {source.provider: source.path for source in config.hydra.runtime.config_sources}
    names = [config.hydra.runtime.choices.get("experiment")]
    for override in swept(config):
        if override.key_or_group == "experiment" and isinstance(choice := override.value(), ChoiceSweep):
            names = [str(name) for name in choice.list]
    try:
        notices = [meeting(Path(sources["main"]), name) for name in names]
    except UserError as error:
        sys.exit(f"{config.hydra.job.name}: {error}")
    print(*filter(None, notices), sep="\n", end="\n" * any(notices), flush=True)


def check_data(config: DictConfig, settings: DataSettings) -> None:
    """End a sweep before its first job where jobs would not find their data prepared.

    Where experiments are swept over, each job looks for itself.
    """
    if config.hydra.job.name not in READ_PREPARED:
        return
    keys = [override.key_or_group for override in swept(config)] + list(config.hydra.sweeper.get("params") or {})
    data = [key for key in keys if key.partition(".")[0] == "data"]
    try:
        if data:
            raise UserError(
                f"the jobs of a sweep share one data/prepared and cannot differ in {', '.join(data)}; experiments do "
                f"not: `dvc exp run --queue -S {data[0]}=a,b`, then `dvc queue start`"
            )
        if "experiment" not in keys:
            require_prepared(settings)
    except UserError as error:
        sys.exit(f"{config.hydra.job.name}: {error}")


def swept(config: DictConfig) -> list[Override]:
    """Return the overrides of the command line that the jobs of a sweep differ in."""
    # One of them may be an interpolation, which has no value here.
    given = cast(list[str], OmegaConf.to_container(config.hydra.overrides.task, resolve=False))
    parsed = OverridesParser.create().parse_overrides(given)
    return [override for override in parsed if override.is_sweep_override()]
