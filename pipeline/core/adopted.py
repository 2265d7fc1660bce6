"""What `tunesmith adopt` has made to last: how it stands in conf/, and where an experiment meets it.

Presets and values stand in conf/adopted.yaml, above conf/ and its recipes and below an experiment. An adopted
experiment stands in conf/experiment/adopted.yaml, under the same presets and values; another one takes its place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from common.errors import UserError
from common.files import write_text
from pipeline.core.composition import choices, compose
from pipeline.core.mappings import flatten, plain_value

FILE, EXPERIMENT = Path("adopted.yaml"), Path("experiment/adopted.yaml")
HEADER = "# @package _global_\n# Written by `tunesmith adopt`; "
VALUES = HEADER + "overrides that last.\n"
OVERLAY = HEADER + "the experiment that lasts, under what else is adopted.\n"
OVERRIDE = "override /"


@dataclass(frozen=True)
class Adopted:
    """Presets by group, `experiment` among them, and values by dotted key."""

    presets: dict[str, object]
    values: dict[str, object]

    def __bool__(self) -> bool:
        return bool(self.presets or self.values)

    @property
    def all(self) -> dict[str, object]:
        """Presets and values."""
        return {**self.presets, **self.values}

    def without(self, keys: Iterable[str]) -> "Adopted":
        """Return what is adopted less these presets and values."""
        presets, values = (
            {key: part[key] for key in part if key not in set(keys)} for part in (self.presets, self.values)
        )
        return Adopted(presets, values)


def read(conf: Path) -> Adopted:
    """Return what is adopted in a conf folder.

    Raises:
        UserError: the files are not as `adopt` writes them.
    """
    presets: dict[str, object] = {}
    try:
        values = _load(conf / FILE)
        for entry in values.pop("defaults", []):
            ((override, choice),) = entry.items()
            presets[override.removeprefix(OVERRIDE)] = choice
        if defaults := _load(conf / EXPERIMENT).get("defaults"):
            presets = {"experiment": defaults[0], **presets}
        return Adopted(presets, flatten(values))
    except (yaml.YAMLError, OSError, ValueError, AttributeError) as error:
        files = f"{conf / FILE} or {conf / EXPERIMENT}"
        raise UserError(f"{files} is not as adopt writes it ({' '.join(str(error).split())}); adopt --reset") from error


def _load(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no keys")
    return content


def write(conf: Path, adopted: Adopted) -> None:
    """Put it into a conf folder, in place of what is there."""
    values = OmegaConf.create()
    for key, value in adopted.values.items():
        OmegaConf.update(values, key, value)
    lines = [f"  - {OVERRIDE}{group}: {choice}\n" for group, choice in adopted.presets.items() if group != "experiment"]
    defaults = "defaults:\n" + "".join(lines) if lines else ""
    write_text(conf / FILE, VALUES + defaults + (OmegaConf.to_yaml(values) if values else ""))
    experiment = adopted.presets.get("experiment")
    overlay = f"defaults: [{experiment}, /adopted, _self_]\nexperiment: adopted\n" if experiment else ""
    write_text(conf / EXPERIMENT, OVERLAY + overlay)


def require_names(conf: Path) -> None:
    """See to it that each experiment says its name, by which `meeting` knows it: params.yaml has no other trace of it.

    Raises:
        UserError: one does not.
    """
    for path in sorted((conf / EXPERIMENT).parent.glob("*.yaml")):
        line = f"experiment: {path.stem}"
        if path.name != EXPERIMENT.name and line not in path.read_text(encoding="utf-8").splitlines():
            raise UserError(f"{path} does not say its name; add the line `{line}`")


def met(conf: Path, adopted: Adopted, experiment: str) -> list[str]:
    """Return what is adopted in a conf folder and set otherwise by an experiment.

    Raises:
        UserError: there is no such experiment, or it does not compose.
    """
    override = [f"experiment={experiment}"]
    chosen, composed = choices(conf, override), compose(conf, override)
    presets = [group for group, choice in adopted.presets.items() if str(chosen.get(group, [])) != str(choice)]
    return presets + [key for key, value in adopted.values.items() if plain_value(composed, key) != value]


def meeting(conf: Path, experiment: str | None) -> str:
    """Return what an experiment overrides of all that is adopted and what stays, in a line.

    Empty where nothing is adopted.

    Raises:
        UserError: as for `met`.
    """
    adopted = read(conf)
    if not adopted or experiment in (None, EXPERIMENT.stem):
        return ""
    over = met(conf, adopted, experiment)
    stay = [key for key in adopted.all if key not in over]
    clauses = [
        f"{what} adopted {', '.join(f'{key}={adopted.all[key]}' for key in keys)}"
        for what, keys in (("overrides", over), ("leaves", stay))
        if keys
    ]
    return f"experiment={experiment} {'; it '.join(clauses)}"
