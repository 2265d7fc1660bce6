"""conf/ and overrides, composed by Hydra."""

import re
from contextlib import nullcontext
from pathlib import Path

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from pipeline.core.config import unknown_key

CONF = Path("conf")
# Which defaults Hydra takes: a question of 1.3, which 1.4 warns of and 1.5 will not know.
DEFAULTS = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def compose(conf: Path, overrides: list[str] | None = None) -> DictConfig:
    """Return the configuration that a conf folder and overrides compose to.

    Raises:
        UserError: an override or a file in conf/ that Hydra cannot use.
    """
    composed = _compose(conf, overrides)
    with open_dict(composed):
        del composed.hydra
    return composed


def choices(conf: Path, overrides: list[str] | None = None) -> dict[str, str | None]:
    """Return the preset of each group that a conf folder and overrides choose; `experiment` is null where none is.

    Raises:
        UserError: as for `compose`.
    """
    return dict(_compose(conf, overrides).hydra.runtime.choices)


def _compose(conf: Path, overrides: list[str] | None) -> DictConfig:
    # A stage that is run by hand is Hydra's already, and on this folder.
    begun = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if begun else hydra.initialize_config_dir(str(conf.resolve()), **DEFAULTS):
            return hydra.compose("config", overrides=overrides or [], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{conf.name}/ does not compose: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return in one line what Hydra or OmegaConf has against an override or a file in conf/."""
    text = " ".join(str(error).split()).partition(" Config search path:")[0]
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as KEY=VALUE: {text.partition(' See https://')[0]}"
    if isinstance(error, MissingConfigException) and error.options:
        return f"{text.partition(' Available options')[0]}; there is {', '.join(error.options)}"
    if key := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(key[1]) or text
    return f"{text}: {' '.join(str(error.__cause__).split())}" if error.__cause__ else text
