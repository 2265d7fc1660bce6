"""How far each trial of a sweep has come, and what was decided at its rungs: read from the sweep's files alone."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pipeline.core.trials import LOG, OUTCOME, PROGRESS, TASK, Outcome, Point, read_progress
from pipeline.sweeps.ranking import score
from pipeline.sweeps.record import Folder, JobFolder, SweepRecord, Trial
from pipeline.sweeps.rungs import promoted
from pipeline.sweeps.settings import SweepSettings

State = Literal["waiting", "running", "stopped", "passed", "dropped", "finished", "ended", "failed", "refused"]
NUMBER = re.compile(r"\d+(\.\d+)?")
OUT = ("ended", "failed", "refused")  # what is ranked behind all else, in this order


@dataclass(frozen=True)
class Stop:
    """A trial at one rung, which it began; a trial of a grid has one."""

    step: int | None  # at which it stops; None in a grid
    begin: int  # the step from whose checkpoint it went on; 0 where it was trained from its beginning
    outcome: Outcome | None
    score: float | None  # the objective, less is better
    points: tuple[Point, ...]

    @property
    def is_final(self) -> bool:
        """Whether it need not be launched again."""
        return self.outcome is not None and self.outcome.is_final

    @property
    def at(self) -> int:
        """The step that it has come to."""
        known = self.outcome.steps if self.outcome else None
        return max([self.begin, known or 0, *(point.step for point in self.points[-1:])])


@dataclass(frozen=True)
class Standing:
    """How far a trial has come, and its place among the others.

    It is `waiting` for a job, `running`, or was `stopped` and waits again; `passed` a rung that others are not through
    with; was `dropped` at one or `finished` the last; `ended` within one; `failed`; or was `refused` before it began.
    """

    place: int  # from 1; the same for trials whose training is one
    trial: Trial
    state: State
    rung: int  # from 1: the one it is in, or came to; counted as in the first bracket
    stops: tuple[Stop, ...]  # of the rungs that it began
    reason: str | None = None  # of what ended, failed, was refused or stopped

    @property
    def finished(self) -> Stop | None:
        """The last rung that it went through."""
        return next((stop for stop in reversed(self.stops) if stop.score is not None), None)

    @property
    def score(self) -> float | None:
        """The objective at the last rung that it went through."""
        return self.finished.score if self.finished else None

    @property
    def curve(self) -> tuple[Point, ...]:
        """Its losses since it was last begun anew, a point for each step at which there is one."""
        merged: dict[int, Point] = {}
        for stop in self.stops:
            merged = merged if stop.begin or not stop.points else {}
            for point in stop.points:
                known = merged.get(point.step)
                merged[point.step] = known.model_copy(update=point.model_dump(exclude_none=True)) if known else point
        return tuple(merged[step] for step in sorted(merged))

    @property
    def step(self) -> int:
        """The step that it has come to."""
        return self.stops[-1].at if self.stops else 0

    @property
    def updates(self) -> int:
        """How many updates were made for it, over all rungs."""
        return sum(stop.at - stop.begin for stop in self.stops)

    def seconds(self, stop: Stop) -> float | None:
        """Return how long one of its stops was trained for; what an outcome says is from the beginning on."""
        before = [each.outcome.seconds or 0 for each in self.stops if each.outcome and each.step == stop.begin]
        total = stop.outcome.seconds if stop.outcome else None
        return None if total is None else max(0.0, total - (before[-1] if before and stop.begin else 0.0))

    @property
    def loss(self) -> float | None:
        """The newest loss that is known: of validation, else of training."""
        for stop in reversed(self.stops):
            if stop.outcome and stop.outcome.validation_loss is not None:
                return stop.outcome.validation_loss
            for key in ("validation_loss", "train_loss"):
                for point in reversed(stop.points):
                    if getattr(point, key) is not None:
                        return float(getattr(point, key))
        return None


@dataclass(frozen=True)
class Decision:
    """Who went on behind a rung that all of a bracket's trials are through with."""

    bracket: int
    rung: int  # from 1, counted as in the first bracket
    step: int
    entered: int  # trials
    kept: Mapping[int, float]  # scores by trial, the best first
    dropped: Mapping[int, float]  # those that went through it, too

    @property
    def cut(self) -> float:
        """The worst score with which a trial went on."""
        return max(self.kept.values())


def standings(
    folder: Folder, record: SweepRecord, settings: SweepSettings, made: Sequence[Decision] | None = None
) -> list[Standing]:
    """Return all trials, the best first; `made` are the decisions so far, where they are known.

    Those that came furthest lead, by their score there; then those that finished no rung yet, those that ended within
    one, those that failed and those that were refused. A trial whose training is another's stands behind it, at the
    same place.
    """
    dropped = dropped_at(decisions(folder, record, settings) if made is None else made)
    own = [standing(folder, record, settings, trial, dropped) for trial in record.trials if trial.same_as is None]
    ranked = [replace(each, place=place) for place, each in enumerate(sorted(own, key=order), 1)]
    twins: dict[int, list[Trial]] = {}
    for trial in record.trials:
        if trial.same_as is not None:
            twins.setdefault(trial.same_as, []).append(trial)
    return [
        one for each in ranked for one in (each, *(replace(each, trial=t) for t in twins.get(each.trial.number, [])))
    ]


def order(standing: Standing) -> tuple[int, float, float, int]:
    """Return what trials are sorted by."""
    finished = standing.finished
    group = OUT.index(standing.state) + 2 if standing.state in OUT else int(finished is None)
    reached = finished.step or 0 if finished else 0
    return group, -reached, math.inf if standing.score is None else standing.score, standing.trial.number


def reasons(ranked: Sequence[Standing]) -> dict[tuple[State, str], list[Standing]]:
    """Return why trials came to nothing: the trials of each reason; of those that differ in numbers alone the first."""
    found: dict[tuple[State, str], list[Standing]] = {}
    for each in ranked:
        if each.reason is not None and each.trial.same_as is None:
            found.setdefault((each.state, NUMBER.sub("#", each.reason)), []).append(each)
    return {(state, str(these[0].reason)): these for (state, _), these in found.items()}


def decisions(folder: Folder, record: SweepRecord, settings: SweepSettings) -> list[Decision]:
    """Return what was decided so far: by bracket, rung after rung."""
    made = []
    for bracket, steps in enumerate(record.rungs):
        going = [t for t in record.trials if t.bracket == bracket and t.same_as is None and t.refused is None]
        for step in steps[:-1]:
            scores = complete_scores(folder, going, step, settings)
            if not scores:
                break
            kept = promoted(scores, len(going), settings.eta)
            best = sorted(scores, key=lambda number: (scores[number], number))
            made.append(
                Decision(
                    bracket=bracket,
                    rung=rung_of(record, step),
                    step=step,
                    entered=len(going),
                    kept={number: scores[number] for number in kept},
                    dropped={number: scores[number] for number in best if number not in kept},
                )
            )
            going = [trial for trial in going if trial.number in kept]
    return made


def complete_scores(
    folder: Folder, trials: Sequence[Trial], step: int, settings: SweepSettings
) -> dict[int, float] | None:
    """Return the scores of those that went through a rung, by trial; None while one has no outcome there."""
    outcomes = {trial.number: outcome_of(folder.job(trial.number, step)) for trial in trials}
    if any(outcome is None or not outcome.is_final for outcome in outcomes.values()):
        return None
    scores = {number: score(outcome, settings.weights) for number, outcome in outcomes.items()}
    return {number: value for number, value in scores.items() if value is not None}


def dropped_at(made: Sequence[Decision]) -> dict[int, int]:
    """Return at what step trials were dropped."""
    return {number: decision.step for decision in made for number in decision.dropped}


def rung_of(record: SweepRecord, step: int | None) -> int:
    """Return a rung's number, from 1: as in the first bracket, which has all of them."""
    return 1 if step is None else record.rungs[0].index(step) + 1


def standing(
    folder: Folder, record: SweepRecord, settings: SweepSettings, trial: Trial, dropped: Mapping[int, int]
) -> Standing:
    """Return how far a trial with a training of its own has come; its place is not known yet."""
    steps: Sequence[int | None] = record.rungs[trial.bracket] or (None,)
    jobs = {step: folder.job(trial.number, step) for step in steps}
    begin = begins(steps, settings)
    told = {step: job for step, job in jobs.items() if (job.path / TASK).is_file() or (job.path / OUTCOME).is_file()}
    stops = tuple(stop(step, begin[step], job, settings) for step, job in told.items())
    if trial.refused is not None or not stops:
        state: State = "waiting" if trial.refused is None else "refused"
        return Standing(0, trial, state, rung_of(record, steps[0]), stops, trial.refused)
    last = stops[-1]
    state = state_at(last, jobs[last.step], is_last=last.step == steps[-1])
    if state == "passed" and trial.number in dropped:
        state = "dropped"
    reason = last.outcome.reason if last.outcome else None
    if state == "failed" and last.score is None and last.outcome and last.outcome.status == "finished":
        reason = "it has no figures to be ranked by"
    return Standing(0, trial, state, rung_of(record, last.step), stops, reason)


def begins(steps: Sequence[int | None], settings: SweepSettings) -> dict[int | None, int]:
    """Return from which step each rung goes on; one that was added begins anew, with a longer course."""
    course = settings.max_steps or 0
    return {
        step: 0 if last is None or step is None or step > course else last
        for last, step in zip([None, *steps], steps, strict=False)  # the last one has none behind it
    }


def stop(step: int | None, begin: int, job: JobFolder, settings: SweepSettings) -> Stop:
    """Return a trial at one rung."""
    outcome = outcome_of(job)
    return Stop(step, begin, outcome, score(outcome, settings.weights), progress_of(job))


def state_at(last: Stop, job: JobFolder, *, is_last: bool) -> State:
    """Return the state of a trial by the last rung that it began."""
    if last.outcome is None:
        return "running" if is_begun(job) else "waiting"
    if last.outcome.status != "finished":
        return last.outcome.status
    if last.score is None and last.step is not None:
        return "failed"
    return "finished" if is_last else "passed"


def is_begun(job: JobFolder) -> bool:
    """Return whether a job has written of its output since it was last told what to do."""
    log, task = job.path / LOG, job.path / TASK
    return log.is_file() and log.stat().st_mtime_ns >= task.stat().st_mtime_ns


def outcome_of(job: JobFolder) -> Outcome | None:
    """Return how a job ended, None if it has not; a file is read once."""
    path = job.path / OUTCOME
    return read_outcome(path, *version(path)) if path.is_file() else None


def progress_of(job: JobFolder) -> tuple[Point, ...]:
    """Return a job's losses so far; a file is read once, and again when it has grown."""
    path = job.path / PROGRESS
    return read_points(job.path, *version(path)) if path.is_file() else ()


def version(path: Path) -> tuple[int, int]:
    """Return what changes when a file does."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=4096)
def read_outcome(path: Path, changed: int, size: int) -> Outcome:
    """Return the outcome in this version of a file."""
    return Outcome.read(path)


@lru_cache(maxsize=4096)
def read_points(folder: Path, changed: int, size: int) -> tuple[Point, ...]:
    """Return the progress in this version of a job's file."""
    return tuple(read_progress(folder))
