"""What a run is called in MLflow's list: model and data, the experiment, and what else tells it from their presets."""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from common.errors import UserError
from pipeline.core.adopted import read
from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, load
from pipeline.core.mappings import flatten

SHOWN, LONGEST = 5, 40  # settings in a name, and characters of a value
# What tells no training from another: a run goes over all stop steps, and the rest is how it is watched and computed.
UNTOLD = {
    *("model.name", "data.name"),  # stand in every name
    *(
        f"train.{key}"
        for key in (
            *("stop_step", "save_steps", "save_total_limit", "eval_steps", "eval_batch_size", "logging_steps"),
            *("max_truncated", "packing", "attention", "compile", "gradient_checkpointing", "check_export"),
        )
    ),
}


def run_name(config: Config) -> str:
    """Return a name such as `starter-s on starter · lr 0.001, r 32`."""
    named = f"{config.model.name} on {config.data.name}"
    settings: dict[str, object] = {}
    with suppress(UserError):  # no conf/ here, or one that has changed since: no reason for a stage to fail
        settings = differing(config)
    return " · ".join(part for part in (named, config.experiment, in_words(settings)) if part)


def differing(config: Config) -> dict[str, object]:
    """Return what of model, data and train is not as their presets and the experiment have it, by dotted key.

    What was adopted is told, too, where it is in force: it came to last between two runs.

    Raises:
        UserError: conf/ does not compose.
    """
    own, usual = _told(config), _usual(CONF.resolve(), _state(CONF), *_presets(config))
    adopted = read(CONF).values
    return {key: value for key, value in own.items() if value != usual.get(key) or value == adopted.get(key, ...)}


def in_words(settings: dict[str, object]) -> str:
    """Return the first of these settings, and how many more there are; of training, by a key's last part alone."""
    ends = Counter(key.rpartition(".")[2] for key in settings)
    words = [f"{_label(key, ends)} {_text(value)}" for key, value in settings.items()]
    more = len(words) - SHOWN
    return ", ".join([*words[:SHOWN], *([f"+{more}"] if more > 0 else [])])


def _presets(config: Config) -> list[str]:
    """Return the overrides that choose its presets, as far as they are in conf/."""
    chosen = {"model": config.model.name, "data": config.data.name, "experiment": config.experiment}
    return [f"{group}={name}" for group, name in chosen.items() if name and (CONF / group / f"{name}.yaml").is_file()]


@lru_cache(maxsize=1)  # a sweep's jobs follow one another in a process, and composing takes half a second
def _usual(conf: Path, _: object, *presets: str) -> dict[str, object]:
    """Return what model, data and train are by these presets; the second argument is the state of conf/."""
    return _told(load(compose(conf, [*presets])))


def _state(conf: Path) -> tuple[tuple[str, int], ...]:
    """Return when each file of conf/ was written."""
    return tuple(sorted((str(path), path.stat().st_mtime_ns) for path in conf.rglob("*.yaml")))


def _told(config: Config) -> dict[str, object]:
    groups = {group: asdict(getattr(config, group)) for group in ("model", "data", "train")}
    return {key: value for key, value in flatten(groups).items() if key not in UNTOLD}


def _label(key: str, ends: Counter[str]) -> str:
    end = key.rpartition(".")[2]
    return end if key.startswith("train.") and ends[end] == 1 else key


def _text(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).replace('"', "")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
