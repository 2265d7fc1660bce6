"""The winner as an experiment: conf/experiment/<name>-best.yaml, which `dvc exp run` trains through all stages."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from common.files import write_text
from pipeline.core.adopted import read
from pipeline.core.composition import CONF
from pipeline.sweeps.record import SweepRecord, Trial

EXPERIMENTS = Path("conf/experiment")
NOT_OF_A_MODEL = ("hydra", "sweep", "runtime", "tracking", "experiment", "compare", "canary")
GROUPS = ("model", "data", "train", "export", "evaluate", "recipe")  # that an override without a dot chooses from


def experiment_name(sweep: str) -> str:
    """Return what the winner of a sweep is called as an experiment."""
    return f"{sweep}-best"


def winner_path(sweep: str) -> Path:
    """Return where a sweep writes its winner."""
    return EXPERIMENTS / f"{experiment_name(sweep)}.yaml"


def title(sweep: str) -> str:
    """Return what the file of a sweep's winner begins with, which no other file does."""
    return f"# @package _global_\n# The winner of the sweep {sweep}, trial "


def is_free(sweep: str) -> bool:
    """Return whether the winner's file is the sweep's own, or not there."""
    path = winner_path(sweep)
    return not path.is_file() or path.read_text(encoding="utf-8", errors="replace").startswith(title(sweep))


def winner_yaml(record: SweepRecord, trial: Trial, checkpoints: str, loss: str) -> str:
    """Return the winner's settings as an overlay, over the experiment that the sweep stood on, if any.

    Args:
        record: the sweep.
        trial: its winner.
        checkpoints: where the winner's are.
        loss: what it came to, for the comment.
    """
    given = [*record.fixed, *(f"{key}={value}" for key, value in trial.values.items())]
    overrides = [each for each in OverridesParser.create().parse_overrides(given) if is_of_model(each)]
    name = experiment_name(record.name)
    defaults: list[object] = [*stands_on(given)]
    defaults += [{f"override /{each.key_or_group}": each.value()} for each in overrides if each.key_or_group in GROUPS]
    content = OmegaConf.create({**({"defaults": defaults} if defaults else {}), "experiment": name})
    for each in overrides:
        if each.key_or_group not in GROUPS:
            OmegaConf.update(content, each.key_or_group, each.value(), force_add=True)
    if record.rungs[0]:
        OmegaConf.update(content, "train.max_steps", record.rungs[0][-1], force_add=True)
    head = [
        f"{title(record.name)}{trial.number}: {loss}.",
        "# Written anew whenever the sweep ends: copy it under another name to change it.",
        f"#   dvc exp run -S experiment={name}                                        trains it from nothing",
        f"#   dvc exp run -S experiment={name} -S runtime.checkpoint_root={checkpoints}   goes on from its checkpoint",
    ]
    return "\n".join(head) + "\n" + OmegaConf.to_yaml(content)


def stands_on(given: Sequence[str]) -> list[str]:
    """Return the experiment under these overrides: theirs, or the adopted one with what else is adopted above it."""
    chosen = [str(each.value()) for each in parsed(given) if each.key_or_group == "experiment" and each.value()]
    if chosen:
        return chosen[-1:]
    adopted = read(CONF).presets.get("experiment")
    return [str(adopted), "/adopted"] if adopted else []


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Return overrides as Hydra reads them."""
    return OverridesParser.create().parse_overrides(list(overrides))


def is_of_model(override: Override) -> bool:
    """Return whether an override says what is made, and not where and how."""
    return re.split(r"[./]", override.key_or_group)[0] not in NOT_OF_A_MODEL


def write_winner(record: SweepRecord, trial: Trial, checkpoints: str, loss: str) -> Path:
    """Write the winner's file, and return where."""
    path = winner_path(record.name)
    write_text(path, winner_yaml(record, trial, checkpoints, loss))
    return path
