"""What is seen of a sweep at a moment, what is new since the last one, and how long it will take."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from common.harmless import harmless
from pipeline.sweeps.names import duration, loss_text, settings_text
from pipeline.sweeps.record import Folder, SweepRecord
from pipeline.sweeps.settings import SweepSettings, read_settings
from pipeline.sweeps.standings import Decision, Standing, begins, decisions, standings, version

Job = tuple[int, int | None]  # a trial and the step at which it stops


@dataclass(frozen=True)
class View:
    """A sweep at a moment."""

    record: SweepRecord
    settings: SweepSettings
    ranked: list[Standing]
    decisions: list[Decision]

    @property
    def own(self) -> list[Standing]:
        """The trials that have a training of their own, the best first."""
        return [each for each in self.ranked if each.trial.same_as is None and each.trial.refused is None]

    @property
    def best(self) -> Standing | None:
        """The best trial, once one has finished a rung."""
        return next((each for each in self.ranked[:1] if each.score is not None), None)

    @property
    def rungs(self) -> int:
        """How many there are."""
        return len(self.record.rungs[0]) or 1

    @property
    def done(self) -> set[Job]:
        """The jobs that need not be launched again."""
        return {(each.trial.number, stop.step) for each in self.own for stop in each.stops if stop.is_final}

    @property
    def steps(self) -> int:
        """Updates that were made."""
        return sum(each.updates for each in self.own)


def look(folder: Folder) -> View:
    """Return a sweep as its files have it now.

    Raises:
        UserError: they cannot be read.
        FileNotFoundError: it is not planned yet.
    """
    record, settings = planned(folder, *version(folder.record_path))
    made = decisions(folder, record, settings)
    return View(record, settings, standings(folder, record, settings, made), made)


@lru_cache(maxsize=4)
def planned(folder: Folder, changed: int, size: int) -> tuple[SweepRecord, SweepSettings]:
    """Return what this version of sweep.json says."""
    record = folder.read()
    return record, read_settings(record.settings)


def ended_lines(before: View, now: View) -> list[str]:
    """Return a line for each job that has ended in between."""
    new = now.done - before.done
    return [
        job_line(now, each, place)
        for each in sorted(now.own, key=lambda one: one.trial.number)
        for place, stop in enumerate(each.stops)
        if (each.trial.number, stop.step) in new
    ]


def job_line(view: View, standing: Standing, place: int) -> str:
    """Return how a job ended; `place` is its rung's among those that the trial began."""
    stop, trial = standing.stops[place], standing.trial
    outcome = stop.outcome
    assert outcome is not None  # noqa: S101
    seconds = standing.seconds(stop)
    spent = "" if seconds is None else f"  {duration(seconds)}"
    rung = "" if stop.step is None else f"rung {view.record.rungs[0].index(stop.step) + 1}/{view.rungs}  "
    what = outcome.status if outcome.reason is None else f"{outcome.status}: {outcome.reason}"
    loss = "" if outcome.validation_loss is None else f"loss {loss_text(outcome.validation_loss)}  "
    whose = f"trial {trial.number} of {len(view.record.trials)}"
    return harmless(f"{rung}{whose}  {settings_text(trial.values)}  {loss}{what}{spent}")


def decision_line(view: View, decision: Decision) -> str:
    """Return what was decided at a rung."""
    bracket = f" of bracket {decision.bracket + 1}" if len(view.record.rungs) > 1 else ""
    number, score = next(iter(decision.kept.items()))
    best = f"best {loss_text(score)} (trial {number}: {settings_text(view.record.trials[number].values)})"
    gone = f"; dropped above {loss_text(decision.cut)}" if decision.dropped else ""
    return (
        f"rung {decision.rung} of {view.rungs}{bracket}: {len(decision.kept)} of {decision.entered} go on, {best}{gone}"
    )


@dataclass(frozen=True)
class Left:
    """Updates that are still to be made."""

    rung: float  # in those that run now
    sweep: float


def steps_left(view: View) -> Left | None:
    """Return how many updates are left, as far as it can be known; who goes on later is not, but how many are."""
    rung = sweep = 0.0
    for bracket, steps in enumerate(view.record.rungs):
        own = [each for each in view.own if each.trial.bracket == bracket]
        begin = begins(steps, view.settings)
        lengths = [float(step - begin[step]) for step in steps] or whole_trainings(view)
        if not lengths:
            return None
        lefts = list(left_by_rung(own, lengths, view.settings.eta))
        rung += next((left for left in lefts if left > 0), 0)
        sweep += sum(lefts)
    return Left(rung, sweep)


def left_by_rung(own: Sequence[Standing], lengths: Sequence[float], eta: int) -> Iterator[float]:
    """Yield the updates that are left in each rung of a bracket."""
    count = len(own)
    for place, length in enumerate(lengths):
        begun = [each.stops[place] for each in own if len(each.stops) > place]
        done = sum(stop.is_final for stop in begun)
        partly = sum(stop.at - stop.begin for stop in begun if not stop.is_final)
        yield max(0.0, (count - done) * length - partly)
        count = max(1, count // eta)


def whole_trainings(view: View) -> list[float]:
    """Return how many updates a trial of a grid has, on the mean of those of which it is known; as a list of one."""
    known = [float(points[-1].of) for each in view.own for stop in each.stops if (points := stop.points)]
    given = view.record.base.get("train.max_steps")
    return [fmean(known)] if known else [float(given)] if isinstance(given, int) else []
