"""The figures of a sweep's report: report.json in its folder."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.core.records import Amount, Count, Record
from pipeline.core.trials import Point
from pipeline.sweeps.standings import State

Place = Annotated[int, Field(ge=1)]


class StopFigures(Record):
    """A trial at a rung that it began."""

    step: Count | None  # None in a grid
    score: float | None
    validation_loss: float | None


class TrialFigures(Record):
    """A trial."""

    number: Count
    place: Place
    bracket: Count
    values: dict[str, str]
    same_as: Count | None
    state: State
    rung: Place
    reason: str | None
    score: float | None  # at the last rung that it went through
    validation_loss: float | None  # there
    step: Count  # that it came to
    updates: Count  # that were made for it; more, where a rung that was added began anew
    seconds: Amount  # of training
    stops: tuple[StopFigures, ...]
    curve: tuple[Point, ...]

    @property
    def is_own(self) -> bool:
        """Whether it has a training of its own."""
        return self.same_as is None and self.state != "refused"


class DecisionFigures(Record):
    """Who went on behind a rung."""

    bracket: Count
    rung: Place
    step: Count
    entered: Count
    kept: tuple[Count, ...]  # trials, the best first
    dropped: tuple[Count, ...]
    best: float
    cut: float  # the worst score that went on
    best_dropped: float | None


class Influence(Record):
    """How much a setting matters: the share of the variance of ranks that is lost with it, and its 90% interval."""

    key: str
    share: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether it can be told from nothing."""
        return self.low > 0


class Importance(Record):
    """How much each setting matters for the ranks at a step."""

    step: Count | None
    trials: Count
    explained: float | None  # share of the variance that a forest foretells of trials that it has not seen
    influences: tuple[Influence, ...]  # the largest first
    untold: str | None  # why nothing can be said


class Spent(Record):
    """What a sweep cost, beside the grid of its trials, each trained to the last rung."""

    updates: Count  # made by trials; those that were made again after a kill count once
    grid_updates: Count | None  # of trials with a training of their own
    whole_grid_updates: Count | None  # of all trials: also of those that are the same training as another
    seconds: Amount  # of training, all trials together
    wall_seconds: Amount | None  # from the first job's start to the last one's end

    @property
    def share(self) -> float | None:
        """The updates made, of the grid's."""
        return self.updates / self.grid_updates if self.grid_updates else None

    @property
    def whole_share(self) -> float | None:
        """The updates made, of those that a grid makes that trains the same thing several times."""
        return self.updates / self.whole_grid_updates if self.whole_grid_updates else None


class Failure(Record):
    """Why trials came to nothing."""

    state: State
    reason: str
    trials: tuple[Count, ...]


class SweepReport(Record):
    """What there is to know of a sweep: report.json."""

    made_by: ClassVar[str] = "train"

    schema_version: int = 1
    name: str
    stage: str
    command: str
    measure: str  # what trials are ranked by
    is_over: bool
    rungs: tuple[tuple[Count, ...], ...]
    winner: Count | None
    adopt: str | None  # the command that makes the winner the configuration
    trials: tuple[TrialFigures, ...]  # the best first
    decisions: tuple[DecisionFigures, ...]
    importance: tuple[Importance, ...]
    spent: Spent
    untried: tuple[str, ...]
    failures: tuple[Failure, ...]

    @property
    def own(self) -> list[TrialFigures]:
        """The trials that have a training of their own, the best first."""
        return [trial for trial in self.trials if trial.is_own]

    @property
    def best(self) -> TrialFigures | None:
        """The winner, or who leads."""
        return next((trial for trial in self.trials[:1] if trial.score is not None), None)
