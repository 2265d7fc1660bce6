"""conf/ becomes params.yaml, the one file of settings that DVC watches, and inputs/, links to what they name.

DVC composes conf/ itself in `dvc exp run`, with that experiment's overrides, and then sets DVC_EXP_NAME: this stage
keeps such a file. Under plain `dvc repro` it composes conf/ anew, which also puts a hand-edited params.yaml right.
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import load
from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.inputs import link_inputs, named

CONF = Path("conf")
PARAMS = Path("params.yaml")


def main() -> None:
    """Writes params.yaml, prints what changed in it, and links what it names."""
    from pipeline.adopted import meeting, require_names  # which composes, too

    try:
        require_names(CONF)
        composed = read_params(PARAMS) if os.environ.get("DVC_EXP_NAME") else compose(CONF)
        config = load(composed)
        links = named(config)
        if said := meeting(CONF, config.experiment):
            print(said)
        if not os.environ.get("DVC_EXP_NAME"):
            if PARAMS.is_file():
                print_changes(flatten(plain(read_params(PARAMS))), flatten(plain(composed)))
            write_text(PARAMS, OmegaConf.to_yaml(composed, resolve=True))
        link_inputs(links)
    except UserError as error:
        sys.exit(f"compose: {error}")


def compose(conf: Path, overrides: list[str] | None = None) -> DictConfig:
    """The configuration that a conf folder and overrides compose to.

    Raises:
        UserError: an override or a file in conf/ that Hydra cannot use.
    """
    composed = _compose(conf, overrides)
    with open_dict(composed):
        del composed.hydra
    return composed


def choices(conf: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The preset of each group that a conf folder and overrides choose; `experiment` is null where none is.

    Raises:
        UserError: as for `compose`.
    """
    return dict(_compose(conf, overrides).hydra.runtime.choices)


def _compose(conf: Path, overrides: list[str] | None) -> DictConfig:
    # A stage that is run by hand is Hydra's already, and on this folder.
    begun = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if begun else hydra.initialize_config_dir(str(conf.resolve()), version_base="1.3"):
            return hydra.compose("config", overrides=overrides or [], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split()).partition(" Config search path:")[0]
        raise UserError(f"{conf.name}/ does not compose: {reason}") from error


def read_params(path: Path) -> DictConfig:
    """An earlier params.yaml.

    Raises:
        UserError: it is not YAML, or no mapping.
    """
    try:
        params = OmegaConf.load(path)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}; git restore {path}") from error
    if not isinstance(params, DictConfig):
        raise UserError(f"{path} holds no keys; git restore {path}")
    return params


def plain(composed: DictConfig) -> Any:
    """A configuration as dictionaries and lists."""
    return OmegaConf.to_container(composed, resolve=True)


def plain_value(composed: DictConfig, key: str) -> Any:
    """The value of a dotted key, resolved; None where there is none."""
    value = OmegaConf.select(composed, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; an empty mapping has none."""
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        path: value
        for key, entry in values.items()
        for path, value in flatten(entry, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def changed_keys(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The keys of two flat mappings whose values differ, sorted; a missing key counts as null."""
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def print_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """One line for each key that differs from the committed params.yaml."""
    changed = changed_keys(before, after)
    for key in changed:
        print(f"  {key}: {before.get(key, '(new)')} -> {after.get(key, '(gone)')}")
    print(f"params.yaml: {len(changed)} changed" if changed else "params.yaml: unchanged")


if __name__ == "__main__":
    main()
