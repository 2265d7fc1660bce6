"""Trials and their settings as one says them."""

from collections import Counter
from collections.abc import Iterable, Mapping

from pipeline.sweeps.standings import Standing


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return for each key as much of its end as tells it from the others.

    >>> short_names(["train.lr", "train.lora.r", "model"])
    {'train.lr': 'lr', 'train.lora.r': 'r', 'model': 'model'}
    """
    parts = {key: key.lstrip("+").split(".") for key in keys}
    names = {key: path[-1] for key, path in parts.items()}
    for length in range(2, max(map(len, parts.values()), default=0) + 1):
        often = Counter(names.values())
        names = {key: ".".join(parts[key][-length:]) if often[name] > 1 else name for key, name in names.items()}
    return names


def settings_text(values: Mapping[str, str]) -> str:
    """Return a trial's settings as the command line has them."""
    return " ".join(f"{key}={value}" for key, value in values.items())


def state_text(standing: Standing, rungs: int) -> str:
    """Return a trial's state, with the rung where that says more, and the trial whose training its own is."""
    trial, state = standing.trial, standing.state
    where = f" {standing.rung}/{rungs}" if rungs > 1 and state in ("dropped", "ended", "failed") else ""
    twin = "" if trial.same_as is None else f" = trial {trial.same_as}"
    return f"{state}{where}{twin}"


def loss_text(loss: float | None) -> str:
    """Return a loss as tables have it."""
    return "-" if loss is None else f"{loss:.4f}"


def duration(seconds: float) -> str:
    """Return a time as one reads it: 12 s, 4:05 min, 1:02:03 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02} h" if hours else f"{minutes}:{whole % 60:02} min"
