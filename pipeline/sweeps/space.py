"""The search space in the grammar of Hydra's overrides: what trials differ in, and what each has.

`a=1,2`, `choice(1,2)`, `range(1,5)` and `glob(*)` list values; `interval(1e-5,1e-3)` is drawn from, evenly, or by
`tag(log,interval(1e-5,1e-3))` evenly in its logarithm.
"""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from hydra.core.override_parser.types import IntervalSweep, Override

from common.errors import UserError

MOST = 100_000  # combinations that are written down one by one
LOG, INTEGER = "log", "int"  # tags of an interval


@dataclass(frozen=True)
class Dimension:
    """A key that trials differ in: its values as override texts, or the bounds that they are drawn between."""

    key: str  # as it stands in an override, with a + where it has one
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    @property
    def is_interval(self) -> bool:
        """Whether it has bounds in place of values."""
        return not self.values

    def draw(self, random_numbers: random.Random) -> str:
        """Return one of its values, at random."""
        if self.values:
            return random_numbers.choice(self.values)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = random_numbers.uniform(low, high)
        return self.written(math.exp(value) if self.log else value)

    def written(self, value: float) -> str:
        """Return a number between the bounds as an override has it; six digits tell any two settings apart."""
        return str(round(value)) if self.integer else f"{float(f'{value:.6g}')!r}"


Values = Mapping[str, str]  # of a trial: what it has, by key


def dimensions(overrides: Sequence[Override]) -> list[Dimension]:
    """Return what overrides sweep over; of a key that comes twice the last counts, as it does for Hydra.

    Raises:
        UserError: an interval that nothing can be drawn from.
    """
    swept = {override.get_key_element(): override for override in overrides if override.is_sweep_override()}
    return [dimension(key, override) for key, override in swept.items()]


def dimension(key: str, override: Override) -> Dimension:
    """Return a sweeping override as a dimension."""
    if not override.is_interval_sweep():
        return Dimension(key, tuple(dict.fromkeys(override.sweep_string_iterator())))
    interval = cast(IntervalSweep, override.value())
    low, high = float(interval.start or 0), float(interval.end or 0)
    tags = {str(tag) for tag in interval.tags}
    if unknown := tags - {LOG, INTEGER}:
        raise UserError(
            f"{override.input_line}: the tag {min(unknown)} is not known; an interval may have {LOG} or {INTEGER}"
        )
    if not low < high or (LOG in tags and low <= 0):
        raise UserError(
            f"{override.input_line}: an interval has a lower bound below its upper one{', above 0' * (LOG in tags)}"
        )
    whole = INTEGER in tags or (isinstance(interval.start, int) and isinstance(interval.end, int))
    return Dimension(key, low=low, high=high, log=LOG in tags, integer=whole)


def combinations(space: Sequence[Dimension]) -> list[Values]:
    """Return every combination, the last dimension changing fastest.

    Raises:
        UserError: an interval has no end of values, or there are too many combinations.
    """
    for each in space:
        if each.is_interval:
            raise UserError(
                f"{each.key} is an interval without an end of values; set hydra.sweeper.trials, or list some"
            )
    if (count := math.prod(len(each.values) for each in space)) > MOST:
        raise UserError(f"the space has {count:,} combinations; set hydra.sweeper.trials for a sample of them")
    return [
        dict(zip([each.key for each in space], chosen, strict=True))
        for chosen in itertools.product(*(each.values for each in space))
    ]


def sample(space: Sequence[Dimension], count: int, seed: int) -> list[Values]:
    """Return so many different combinations at random, or all where there are fewer; more begin with the same."""
    size = math.inf if any(each.is_interval for each in space) else math.prod(len(each.values) for each in space)
    random_numbers, drawn = random.Random(seed), dict[tuple[str, ...], None]()
    while len(drawn) < min(count, size):
        drawn[tuple(each.draw(random_numbers) for each in space)] = None
    return [dict(zip([each.key for each in space], chosen, strict=True)) for chosen in drawn]
