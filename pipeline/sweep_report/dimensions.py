"""What trials differ in, as axes have it: values in their order, or bounds."""

import math
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from pipeline.sweeps.names import short_names
from pipeline.sweeps.record import SweepRecord
from pipeline.sweeps.space import Dimension, dimensions


@dataclass(frozen=True)
class Setting:
    """A key that trials differ in."""

    key: str
    name: str  # as short as it can be
    values: tuple[str, ...]  # numbers by their size, others as they were listed; those drawn, of an interval
    bounds: tuple[float, float] | None = None  # of an interval
    is_log: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether its values have an order of their own."""
        return all(number(value) is not None for value in self.values)

    def code(self, value: str) -> float:
        """Return a value as a number: its own, or its place."""
        found = number(value) if self.is_numeric else None
        if found is None:
            return float(self.values.index(value))
        return math.log(found) if self.is_log else found


def number(value: str) -> float | None:
    """Return the finite number that a text is, None where it is none."""
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def settings_of(record: SweepRecord) -> list[Setting]:
    """Return what the trials of a sweep differ in, in the order of the command line."""
    known, names = given(record), short_names(record.space)
    return [setting(key, names[key], known.get(key), record) for key in record.space]


def given(record: SweepRecord) -> dict[str, Dimension]:
    """Return the dimensions that were asked for; none of those that only Hydra's search path can tell, as globs."""
    found: dict[str, Dimension] = {}
    for key, text in record.space.items():
        try:
            found |= {
                each.key: each for each in dimensions(OverridesParser.create().parse_overrides([f"{key}={text}"]))
            }
        except (HydraException, ValueError):
            continue
    return found


def setting(key: str, name: str, dimension: Dimension | None, record: SweepRecord) -> Setting:
    """Return a dimension with all values that it lists or that trials have of it."""
    had = [trial.values[key] for trial in record.trials if key in trial.values]
    values = list(dict.fromkeys([*(dimension.values if dimension else ()), *had]))
    if all(number(value) is not None for value in values):
        values.sort(key=float)
    if dimension is None or not dimension.is_interval:
        return Setting(key, name, tuple(values))
    return Setting(key, name, tuple(values), (dimension.low, dimension.high), dimension.log)


def said(setting: Setting, value: str) -> str:
    """Return a setting with its value."""
    return f"{setting.name} {value}"


def as_numbers(settings: list[Setting], values: dict[str, str]) -> list[int | float | str]:
    """Return a trial's values as numbers, in the order of the settings."""
    return [setting.code(values[setting.key]) for setting in settings]
