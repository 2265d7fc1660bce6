"""Makes overrides last: adds them to what is adopted, which stands above conf/ and below an experiment.

    tunesmith adopt model=starter-s train.lr=1e-3     # from now on, `dvc repro` uses these
    tunesmith adopt                                   # what is adopted
    tunesmith adopt --drop train.lr                   # no longer this one; --reset drops all

Without it, the overrides of an applied experiment are gone with the next edit anywhere in conf/.
"""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from pipeline.commands.identity import SIGN, has_identity
from pipeline.core.adopted import EXPERIMENT, Adopted, met, read, write
from pipeline.core.composition import CONF, choices, compose
from pipeline.core.config import load
from pipeline.core.mappings import flatten, plain_value


def run(overrides: Sequence[str] = (), dropped: Sequence[str] = (), reset: bool = False) -> None:
    """Change what is adopted, once it is known to compose, and print all of it; from a folder of the repository.

    Args:
        overrides: what is adopted beside the rest, as for `dvc exp run -S`.
        dropped: keys of what is to be adopted no longer.
        reset: adopt nothing but `overrides`.

    Raises:
        UserError: there is no conf/, an override that it does not know, or nothing to drop; what was adopted is then
            as it was.
    """
    with chdir(repository()):
        change(overrides, dropped, reset)


def repository() -> Path:
    """Return the nearest folder upwards that has a conf/; of another than this one it is said.

    Raises:
        UserError: there is none.
    """
    here = Path.cwd()
    found = next((folder for folder in (here, *here.parents) if (folder / CONF / "config.yaml").is_file()), None)
    if found is None:
        raise UserError(f"there is no folder {CONF} here or above; run this in the repository")
    if found != here:
        print(f"in {found}, which paths are relative to")
    return found


def change(overrides: Sequence[str], dropped: Sequence[str], reset: bool) -> None:
    """Change what is adopted in the working folder, and print all of it."""
    before = Adopted({}, {}) if reset else read(CONF)
    with tempfile.TemporaryDirectory(prefix="tunesmith-adopt-") as folder:
        trial = shutil.copytree(CONF, Path(folder) / CONF.name)
        adopted = add(trial, drop(before, dropped), parse(list(overrides)))
        print_adopted(trial, adopted)
    if overrides or dropped or reset:
        write(CONF, adopted)
        print("run `dvc repro` to use them" if adopted else "run `dvc repro`")
        if not has_identity():
            print(f"git has no name to sign with, without which `dvc exp run` fails from now on: {SIGN}")


def parse(overrides: list[str]) -> list[Override]:
    """Return the overrides as Hydra reads them.

    Raises:
        UserError: it cannot, or one cannot be adopted.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise UserError(f"cannot read the overrides: {' '.join(str(error).split())}") from error
    keys = [override.key_or_group for override in parsed]
    for override, key in zip(parsed, keys, strict=True):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} names several values; adopt one of them")
        if keys.count(key) > 1:
            raise UserError(f"{key} is given {keys.count(key)} times; give it once")
        if key.startswith("hydra"):
            raise UserError(f"{override.input_line} is a setting of Hydra's; change it in conf/config.yaml")
        if (key, override.value()) == (EXPERIMENT.parent.name, EXPERIMENT.stem):
            raise UserError(f"{override.input_line} stands for what is adopted; name another experiment")
    return parsed


def drop(adopted: Adopted, keys: Sequence[str]) -> Adopted:
    """Return what is adopted without these.

    Raises:
        UserError: one of them is not adopted.
    """
    for key in keys:
        if key not in adopted.all:
            raise UserError(f"{key} is not adopted; adopted is: {', '.join(adopted.all) or 'nothing'}")
    return adopted.without(keys)


def add(conf: Path, adopted: Adopted, overrides: list[Override]) -> Adopted:
    """Return what is adopted with these overrides, tried in a copy of conf/.

    What a newly adopted experiment sets goes, unless it is given beside it.

    Raises:
        UserError: it does not compose.
    """
    new: dict[str, object] = {
        o.key_or_group: [] if o.is_delete() else o.value() for o in overrides if (conf / o.key_or_group).is_dir()
    }
    given = flatten({o.key_or_group: o.value() for o in overrides if o.key_or_group not in new})
    keys = list(given)
    lines = [str(o.input_line) for o in overrides if not (o.is_delete() and o.key_or_group in new)]
    for key, value in {**new, **given}.items():
        if (before := adopted.all.get(key, value)) != value:
            print(f"{key} = {before} goes: {key}={value} takes its place")
    changed = {group: choice for group, choice in new.items() if choice != adopted.presets.get(group)}
    old = adopted.without([*new, *keys])
    if experiment := changed.get("experiment"):
        over = met(conf, old, str(experiment))
        for key in over:
            print(f"{key} = {old.all[key]} goes: experiment={experiment} sets it")
        old = old.without(over)
    presets = {**old.presets, **new}
    values = fitting(conf, presets, old.values, changed, lines)
    composed = compose_with(conf, Adopted(presets, values), lines)
    result = Adopted(presets, {**values, **{key: plain_value(composed, key) for key in keys}})
    compose_with(conf, result, [])
    return result


def fitting(
    conf: Path,
    presets: dict[str, object],
    values: dict[str, object],
    changed: dict[str, object],
    overrides: list[str],
) -> dict[str, object]:
    """Return the values that stay adopted: of those under a changed preset, what composes; which do is said."""
    kept = {key: value for key, value in values.items() if key.partition(".")[0] not in changed}
    for key in [key for key in values if key not in kept]:
        preset = f"{(group := key.partition('.')[0])}={changed[group]}"
        try:
            compose_with(conf, Adopted(presets, {**kept, key: values[key]}), overrides)
            kept[key] = values[key]
            print(f"{key} = {values[key]} stays, under {preset}")
        except UserError:
            print(f"{key} = {values[key]} goes: it does not fit {preset}")
    return kept


def compose_with(conf: Path, adopted: Adopted, overrides: list[str]) -> DictConfig:
    """Return what a conf folder composes to once this is adopted in it, and valid.

    Raises:
        UserError: it does not compose, or is not valid.
    """
    write(conf, adopted)
    composed = compose(conf, overrides)
    load(composed)
    return composed


def print_adopted(conf: Path, adopted: Adopted) -> None:
    """Print all that is adopted and what it stands above, by a copy of conf/."""
    if not adopted:
        print("nothing is adopted")
    write(conf, Adopted({}, {}))
    presets = {**choices(conf), "experiment": None}
    write(conf, Adopted(adopted.presets, {}))
    values = compose(conf)
    for group, choice in adopted.presets.items():
        print(f"adopted {group} = {choice} (conf/: {presets.get(group)})")
    for key, value in adopted.values.items():
        print(f"adopted {key} = {value} (conf/: {OmegaConf.select(values, key)})")
