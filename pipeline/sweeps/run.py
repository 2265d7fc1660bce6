"""A sweep from wave to wave: what has no outcome is launched, and who goes on is read from files."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FrameType

from common.errors import Interrupted, MachineError, UserError
from common.files import unwritable
from pipeline.core.trials import LOG, OUTCOME, TASK, Limit, Outcome, Task
from pipeline.sweeps.leash import Leash, begun
from pipeline.sweeps.plan import TRAIN, Request, with_trials, written
from pipeline.sweeps.proposals import propose
from pipeline.sweeps.record import Folder, JobFolder, SweepRecord, Trial, subfolder
from pipeline.sweeps.settings import OWN_SAMPLERS, SweepSettings
from pipeline.sweeps.standings import Decision, decisions
from pipeline.tracking.run import Run

# Runs jobs with these overrides and returns once all have ended. One that has died before may be told to take no other
# with it.
Launch = Callable[[Sequence[Sequence[str]], bool], None]


@dataclass(frozen=True)
class Job:
    """A trial at a rung."""

    trial: Trial
    stop_step: int | None  # None in a grid
    limit: Limit | None = None


@dataclass
class Sweep:
    """A sweep that runs; its record grows where a sampler proposes."""

    folder: Folder
    record: SweepRecord
    request: Request
    launch: Launch
    parent: Run
    leash: Leash

    @property
    def settings(self) -> SweepSettings:
        """What it was asked for with."""
        return self.request.settings

    def run(self) -> None:
        """Launch wave after wave until no trial has a rung before it.

        Raises:
            Interrupted: it was asked to stop.
            UserError: no trial can be trained, or the machine stands in the way.
        """
        for brackets in self.groups():
            self.propose(brackets)
            for jobs in self.waves(brackets):
                self.complete(jobs)

    def groups(self) -> list[list[int]]:
        """Return the brackets that run together: all, or one after another where each learns from those before."""
        brackets = list(range(len(self.record.rungs)))
        return [brackets] if self.settings.sampler in OWN_SAMPLERS else [[bracket] for bracket in brackets]

    def propose(self, brackets: list[int]) -> None:
        """Have the sampler propose the trials of a bracket that has none yet."""
        if any(trial.bracket in brackets for trial in self.record.trials):
            return
        for bracket in brackets:
            chosen = propose(self.record, self.folder, self.settings, self.request.space, bracket)
            self.record = with_trials(self.record, self.request, self.folder, [(bracket, values) for values in chosen])

    def waves(self, brackets: list[int]) -> Iterator[list[Job]]:
        """Yield the jobs of each rung, of all these brackets; the next ones are known once those are complete."""
        going = {bracket: self.trained(bracket) for bracket in brackets}
        limits: dict[int, Limit | None] = dict.fromkeys(brackets)
        for depth in range(max(1, *(len(self.record.rungs[bracket]) for bracket in brackets))):
            yield [
                Job(trial, self.step(bracket, depth), limits[bracket])
                for bracket in brackets
                if depth < max(1, len(self.record.rungs[bracket]))
                for trial in going[bracket]
            ]
            for bracket in brackets:
                if depth + 1 < len(self.record.rungs[bracket]):
                    decision = self.decide(bracket, depth)
                    going[bracket] = [self.record.trials[number] for number in decision.kept]
                    limits[bracket] = self.limit(bracket, depth, decision)

    def trained(self, bracket: int) -> list[Trial]:
        """Return the trials of a bracket that have a training of their own."""
        return [t for t in self.record.trials if t.bracket == bracket and t.same_as is None and t.refused is None]

    def step(self, bracket: int, depth: int) -> int | None:
        """Return where the jobs of a rung stop; None in a grid."""
        steps = self.record.rungs[bracket]
        return steps[depth] if steps else None

    def decide(self, bracket: int, depth: int) -> Decision:
        """Return who goes on behind a rung, and tell MLflow.

        Raises:
            UserError: nobody has come through it.
        """
        step = self.record.rungs[bracket][depth]
        made = decisions(self.folder, self.record, self.settings)
        decision = next((each for each in made if (each.bracket, each.step) == (bracket, step)), None)
        if decision is None:
            first = self.trained(bracket)[0]
            outcome = self.folder.job(first.number, self.record.rungs[bracket][0]).outcome()
            raise UserError(
                f"no trial has come to step {step}; the first: {outcome.reason if outcome else 'no outcome'}"
            )
        self.parent.metrics({"best": {"score": min(decision.kept.values())}, "cut": decision.cut}, step=step)
        return decision

    def limit(self, bracket: int, depth: int, decision: Decision) -> Limit | None:
        """Return from which loss on a trial is hopeless halfway to the next rung; None where they are not ranked by it.

        It is the worst with which one went on: who has it still would be dropped there, too.
        """
        if self.settings.weights.keys() != {"validation_loss"}:
            return None
        step, next_step = self.record.rungs[bracket][depth : depth + 2]
        outcomes = [self.folder.job(number, step).outcome() for number in decision.kept]
        losses = [outcome.validation_loss for outcome in outcomes if outcome and outcome.validation_loss is not None]
        return Limit(step=(step + next_step) // 2, loss=max(losses)) if len(losses) > 1 else None

    def complete(self, jobs: list[Job]) -> None:
        """Launch these jobs until each has an outcome; one that ends without a word several times has failed.

        Raises:
            Interrupted: it was asked to stop.
            UserError: the launcher starts none of them.
        """
        tries: Counter[int] = Counter()
        while missing := [job for job in jobs if not self.is_done(job)]:
            fresh = [job for job in missing if not tries[job.trial.number]]
            for job in self.died(fresh or missing, again=not fresh):
                tries[job.trial.number] += 1
                if tries[job.trial.number] >= self.settings.attempts:
                    self.give_up(job, tries[job.trial.number])

    def died(self, jobs: list[Job], again: bool) -> list[Job]:
        """Launch jobs, and return those that began and ended without a word.

        Raises:
            Interrupted: it was asked to stop.
            UserError: the launcher starts none of them.
        """
        self.write_tasks(jobs)
        before, trouble = self.begun(jobs), None
        try:
            with self.leash.until_asked():
                self.launch([self.overrides(job) for job in jobs], again)
        except Interrupted:
            raise
        except Exception as error:
            if reason := unwritable(error):
                raise MachineError(
                    f"cannot write below {self.folder.path}: {reason}; make room or grant access"
                ) from error
            trouble = error
        missing = [job for job in jobs if not self.is_done(job)]
        self.raise_if_stopped(missing)
        after = self.begun(jobs)
        if after == before:
            raise trouble or MachineError("the launcher has started none of the jobs")
        silent = [job for job in missing if self.at(job).outcome() is None]
        return [job for job in silent if after[job.trial.number] != before[job.trial.number]]

    def is_done(self, job: Job) -> bool:
        """Return whether a job need not be launched."""
        outcome = self.at(job).outcome()
        return outcome is not None and outcome.is_final

    def at(self, job: Job) -> JobFolder:
        """Return the folder of a job."""
        return self.folder.job(job.trial.number, job.stop_step)

    def write_tasks(self, jobs: list[Job]) -> None:
        """Leave each job what it is to do, and nothing of how it was stopped before."""
        for job in jobs:
            folder = self.at(job).path
            (folder / OUTCOME).unlink(missing_ok=True)
            Task(
                trial=job.trial.number,
                sweep=str(self.folder.path.resolve()),
                stop_step=job.stop_step,
                mlflow_parent=None if self.parent.delivery is None else str(self.parent.delivery.journal.folder),
                worst=self.settings.worst if job.stop_step else None,
                limit=job.limit,
                measure_accuracy="validation_accuracy" in self.settings.weights,
            ).write(folder / TASK)

    def begun(self, jobs: list[Job]) -> dict[int, int | None]:
        """Return when each job was last begun, by trial."""
        return {job.trial.number: begun(self.at(job).path) for job in jobs}

    def overrides(self, job: Job) -> list[str]:
        """Return what a job is launched with."""
        own = [f"hydra.sweep.subdir={subfolder(job.trial.number, job.stop_step)}"]
        if self.request.stage == TRAIN:
            own.append(f"runtime.checkpoint_root={quoted(self.checkpoints(job.trial))}")
        if job.stop_step is not None:
            horizon = max(self.settings.max_steps or 0, job.stop_step)  # a rung that was added is beyond it
            own += [f"train.max_steps={horizon}", f"train.stop_step={job.stop_step}"]
        return [*self.request.fixed, *written(job.trial.values), *own]

    def checkpoints(self, trial: Trial) -> str:
        """Return where a trial has its checkpoints; one whose speed counts shares them with no twin."""
        return f"{self.root}/{trial.number}" if "tokens_per_second" in self.settings.weights else self.root

    @cached_property
    def root(self) -> str:
        """Where the trials have their checkpoints: a place of the sweep's own, which no other training reads."""
        return f"{self.request.composition(self.request.fixed).runtime.checkpoint_root}/sweeps/{self.record.name}"

    def raise_if_stopped(self, jobs: list[Job]) -> None:
        """End the sweep where a job was asked to stop, or could not write.

        Raises:
            Interrupted: with the job's reason.
        """
        for job in jobs:
            outcome = self.at(job).outcome()
            if outcome is not None and not outcome.preempted:
                raise Interrupted(f"trial {job.trial.number}: {outcome.reason}; the same command goes on")

    def give_up(self, job: Job, tries: int) -> None:
        """Have a job failed that has ended several times without a word."""
        folder = self.at(job).path
        why = f"its process has ended {tries} times without a word, as one does that takes too much memory"
        Outcome(status="failed", reason=f"{why}; see {folder / LOG}").write(folder / OUTCOME)


def quoted(text: str) -> str:
    """Return a text as a value that Hydra takes as it is."""
    return "'" + text.replace("'", "\\'") + "'"  # a backslash is one everywhere but before a quote


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end what runs in this process as Ctrl-C does; a training in it takes both itself."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted("SIGTERM: the same command goes on")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
