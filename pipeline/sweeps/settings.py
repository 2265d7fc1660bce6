"""The keys of conf/hydra/sweeper, with their types and bounds."""

import math
import re
from dataclasses import dataclass

from common.errors import UserError
from pipeline.core.config import build
from pipeline.core.limits import filled, limited, one_of

OWN_SAMPLERS = ("grid", "random")  # all of whose trials are known from the start
SAMPLERS = (*OWN_SAMPLERS, "tpe", "gp", "cmaes", "qmc")
MEASURES = ("validation_loss", "validation_accuracy", "train_loss", "tokens_per_second", "adapter_mb")
PLACE = "hydra.sweeper"  # of the keys, in errors


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """Which trials there are, how far each goes, and by what they are ranked."""

    name: str | None
    sampler: str = one_of(*SAMPLERS)
    trials: int | None = limited(least=1)
    seed: int = limited(least=0, most=2**32 - 1)
    min_steps: int | None = limited(least=1)
    max_steps: int | None = limited(least=1)
    eta: int = limited(least=2)
    brackets: int = limited(least=1)
    objective: list[str] = filled()  # terms of a sum: measures, each by a weight
    worst: float | None = limited(above=1)
    attempts: int = limited(least=1)

    @property
    def weights(self) -> dict[str, float]:
        """What a score is the sum of: the weight of each measure.

        Raises:
            UserError: a term cannot be read.
        """
        return dict(map(weighted, self.objective))

    @property
    def halves(self) -> bool:
        """Whether trials are stopped at rungs; a plain grid has each go to its end."""
        return self.max_steps is not None


def read_settings(values: dict[str, object]) -> SweepSettings:
    """Return the settings that the sweeper is given, checked.

    Raises:
        UserError: an unknown key, a value out of range, or two that contradict each other.
    """
    settings: SweepSettings = build(SweepSettings, values, PLACE)
    if settings.name is not None and not re.fullmatch(r"\w[\w.-]*", settings.name, re.ASCII):
        raise UserError(
            f"{PLACE}.name is {settings.name!r}; it is a folder's name and an experiment's, of letters, digits, _ and, "
            "after the first, - and ."
        )
    if settings.max_steps is None and (settings.min_steps is not None or settings.brackets > 1):
        raise UserError(
            f"{PLACE}.max_steps is null, and there are no rungs without it; set it to the steps of the last one"
        )
    if settings.max_steps is not None and not (settings.min_steps or 1) <= settings.max_steps:
        raise UserError(
            f"{PLACE}.min_steps is {settings.min_steps}; it may be at most max_steps, which is {settings.max_steps}"
        )
    _ = settings.weights
    return settings


def weighted(term: str) -> tuple[str, float]:
    """Return a measure and its weight out of a term such as `-1e-5*tokens_per_second`.

    Raises:
        UserError: it is no such term.
    """
    weight, times, name = term.replace(" ", "").rpartition("*")
    sign, name = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    try:
        value = sign * float(weight if times else 1)
    except ValueError:
        value = 0.0
    if name not in MEASURES:
        raise UserError(f"{PLACE}.objective names {name}; it may name {', '.join(MEASURES)}")
    if value == 0 or not math.isfinite(value):
        raise UserError(f"{PLACE}.objective has {term!r}; a weight is a number above 0 where less is better, or below")
    return name, value
