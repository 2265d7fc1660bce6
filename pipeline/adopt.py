"""Makes overrides last: writes them to conf/adopted.yaml, which config.yaml reads after everything else.

    python -m pipeline.adopt model=starter-s train.lr=1e-3     # from now on, `dvc repro` uses these
    python -m pipeline.adopt                                   # back to what conf/ says

Without it, the overrides of an applied experiment are gone with the next edit anywhere in conf/.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pipeline.compose import CONF, compose, flatten, plain
from pipeline.config import load
from pipeline.errors import UserError
from pipeline.files import write_text

ADOPTED = "adopted.yaml"
HEADER = "# @package _global_\n# Written by `python -m pipeline.adopt`; overrides that last.\n"


def main(overrides: list[str]) -> None:
    """Checks the overrides together with conf/ and writes them in place of those adopted before.

    Raises:
        UserError: an override that conf/ does not know; conf/adopted.yaml is then as it was.
    """
    groups, keys = split(overrides, CONF)
    with tempfile.TemporaryDirectory(prefix="tunesmith-adopt-") as folder:
        trial = shutil.copytree(CONF, Path(folder) / CONF.name)
        write_text(trial / ADOPTED, HEADER)  # what was adopted before does not count
        values = OmegaConf.create()
        composed = compose(trial, overrides)
        for key in keys:
            OmegaConf.update(values, key, OmegaConf.select(composed, key))
        write_text(trial / ADOPTED, text(groups, values))
        load(compose(trial))
    write_text(CONF / ADOPTED, text(groups, values))
    for key, value in {**groups, **flatten(plain(values))}.items():
        print(f"adopted {key} = {value}")
    print("run `dvc repro` to use them" if groups or keys else "nothing adopted any more; run `dvc repro`")


def text(groups: dict[str, Any], values: DictConfig) -> str:
    """conf/adopted.yaml with these presets and values."""
    defaults = "".join(f"  - override /{group}: {choice}\n" for group, choice in groups.items())
    return HEADER + (f"defaults:\n{defaults}" if defaults else "") + (OmegaConf.to_yaml(values) if values else "")


def split(overrides: list[str], conf: Path) -> tuple[dict[str, Any], list[str]]:
    """The overrides that choose a preset, as group and choice, and the keys of those that set a value."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(f"cannot read the overrides: {' '.join(str(error).split())}") from error
    groups = {o.key_or_group: o.value() or [] for o in parsed if (conf / o.key_or_group).is_dir()}
    return groups, [o.key_or_group for o in parsed if o.key_or_group not in groups]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"adopt: {error}")
