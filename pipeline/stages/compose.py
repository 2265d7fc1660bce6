"""conf/ becomes params.yaml, the one file of settings that DVC watches, and inputs/, links to what they name.

DVC composes conf/ itself in `dvc exp run`, with that experiment's overrides, and then sets DVC_EXP_NAME: this stage
keeps such a file. Under plain `dvc repro` it composes conf/ anew, which also puts a hand-edited params.yaml right.
"""

from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()


import argparse
import os
import shlex
import sys
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import write_text
from pipeline.core import dvc_files
from pipeline.core.composition import CONF, compose
from pipeline.core.config import load
from pipeline.core.experiments import applied
from pipeline.core.inputs import link_inputs, named
from pipeline.core.mappings import changed_keys, flatten, plain

PARAMS = Path("params.yaml")
FEW = 4  # settings that a line has room for


def main() -> None:
    """Write params.yaml, print what changed in it, and link what it names."""
    from pipeline.core.adopted import meeting, require_names  # which composes, too

    read_arguments()
    try:
        dvc_files.keep()
        require_names(CONF)
        composed = read_params(PARAMS) if os.environ.get("DVC_EXP_NAME") else compose(CONF)
        config = load(composed)
        links = named(config)
        if notice := meeting(CONF, config.experiment):
            print(notice)
        if not os.environ.get("DVC_EXP_NAME"):
            if PARAMS.is_file():
                print_changes(flatten(plain(read_params(PARAMS))), flatten(plain(composed)))
            write_params(composed)
        link_inputs(links)
    except UserError as error:
        sys.exit(f"compose: {error}")


def read_arguments() -> None:
    """Answer `--help`, and refuse what is not read here."""
    description = f"{(__doc__ or '').splitlines()[0]} It takes no overrides: `tunesmith adopt`, or `dvc exp run -S`."
    argparse.ArgumentParser(prog="compose", description=description).parse_args()


def write_params(composed: DictConfig) -> None:
    """Make a composed configuration the one that stages read."""
    write_text(PARAMS, OmegaConf.to_yaml(composed, resolve=True))


def read_params(path: Path) -> DictConfig:
    """Return an earlier params.yaml.

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


def print_changes(before: dict[str, object], after: dict[str, object]) -> None:
    """Print a line for each key that differs from the params.yaml that is there, and whose settings go by that."""
    changed = changed_keys(before, after)
    for key in changed:
        print(f"  {key}: {before.get(key, '(new)')} -> {after.get(key, '(gone)')}")
    print(f"params.yaml: {len(changed)} changed" if changed else "params.yaml: unchanged")
    experiment = applied(PARAMS) if changed else None
    if experiment and (gone := [key for key in experiment.keys if key in changed]):
        values = ((key, "null" if before.get(key) is None else before[key]) for key in gone)
        settings = [shlex.quote(f"{key}={value}") for key, value in values] if len(gone) <= FEW else ["..."]
        last = f"`tunesmith adopt {' '.join(settings)}` makes its settings last"
        print(f"experiment {experiment.name}, which was applied here, is taken back; {last}")


if __name__ == "__main__":
    main()
