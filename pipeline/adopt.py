"""Makes overrides last: writes them to conf/adopted.yaml, which config.yaml reads after everything else.

    python -m pipeline.adopt model=starter-s train.lr=1e-3     # from now on, `dvc repro` uses these
    python -m pipeline.adopt                                   # back to what conf/ says

Without it, the overrides of an applied experiment are gone with the next edit anywhere in conf/.
"""

import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pipeline.compose import CONF, compose, flatten, plain
from pipeline.config import load
from pipeline.errors import UserError
from pipeline.files import write_text

HEADER = "# @package _global_\n# Written by `python -m pipeline.adopt`; overrides that last.\n"


def main(overrides: list[str]) -> None:
    """Checks the overrides together with conf/ and writes them.

    Raises:
        UserError: an override that conf/ does not know; conf/adopted.yaml is then as it was.
    """
    composed = compose(CONF, overrides)
    load(composed)
    groups, keys = split(overrides, CONF)
    adopted = OmegaConf.create()
    for key in keys:
        OmegaConf.update(adopted, key, OmegaConf.select(composed, key))
    defaults = "".join(f"  - override /{group}: {choice}\n" for group, choice in groups.items())
    body = OmegaConf.to_yaml(adopted) if keys else ""
    write_text(CONF / "adopted.yaml", HEADER + (f"defaults:\n{defaults}" if defaults else "") + body)
    for key, value in {**groups, **flatten(plain(adopted))}.items():
        print(f"adopted {key} = {value}")
    print("run `dvc repro` to use them" if groups or keys else "nothing adopted any more; run `dvc repro`")


def split(overrides: list[str], conf: Path) -> tuple[dict[str, Any], list[str]]:
    """The overrides that choose a preset, as group and choice, and the keys of those that set a value."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(f"cannot read the overrides: {' '.join(str(error).split())}") from error
    groups = {o.key_or_group: o.value() for o in parsed if (conf / o.key_or_group).is_dir()}
    return groups, [o.key_or_group for o in parsed if o.key_or_group not in groups]


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"adopt: {error}")
