"""The figures of a sweep's report, from its files."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.core.trials import OUTCOME, TASK
from pipeline.sweep_report.dimensions import settings_of
from pipeline.sweep_report.importance import LEAST, importance
from pipeline.sweep_report.record import (
    DecisionFigures,
    Failure,
    Importance,
    Spent,
    StopFigures,
    SweepReport,
    TrialFigures,
)
from pipeline.sweep_report.untried import untried
from pipeline.sweeps.progress import View, look, whole_trainings
from pipeline.sweeps.ranking import VALIDATION
from pipeline.sweeps.record import Folder
from pipeline.sweeps.standings import Decision, Standing, reasons
from pipeline.sweeps.winner import experiment_name


def read_figures(folder: Folder) -> SweepReport:
    """Return what there is to know of a sweep, over or not.

    Raises:
        UserError: its files cannot be read.
    """
    view = look(folder)
    trials = tuple(map(trial_figures, view.ranked))
    best = trials[0] if trials and trials[0].state == "finished" and trials[0].score is not None else None
    return SweepReport(
        schema_version=1,
        name=view.record.name,
        stage=view.record.stage,
        command=f"tunesmith {view.record.stage} -m {shlex.join(view.record.arguments)}",
        measure=measure(view.settings.weights),
        is_over=not any(trial.state in ("waiting", "running", "stopped", "passed") for trial in trials),
        rungs=view.record.rungs,
        winner=best.number if best else None,
        adopt=command(view, best) if best else None,
        trials=trials,
        decisions=tuple(map(decision_figures, view.decisions)),
        importance=tuple(importance_by_rung(trials, view)),
        spent=spent(folder, view, trials),
        untried=untried(trials, settings_of(view.record), view.rungs),
        failures=tuple(
            Failure(state=state, reason=reason, trials=tuple(each.trial.number for each in these))
            for (state, reason), these in reasons(view.ranked).items()
        ),
    )


def measure(objective: Mapping[str, float]) -> str:
    """Return what trials are ranked by, in words."""
    if dict(objective) == VALIDATION:
        return "validation loss"
    return " + ".join(f"{weight:g} * {name.replace('_', ' ')}" for name, weight in objective.items())


def command(view: View, best: TrialFigures) -> str:
    """Return the command that trains the winner through all stages, or adopts its settings where it has no file."""
    if view.record.settings.get("name") is not None:
        return f"dvc exp run -S experiment={experiment_name(view.record.name)}"
    return "tunesmith adopt " + shlex.join(f"{key}={value}" for key, value in best.values.items())


def trial_figures(standing: Standing) -> TrialFigures:
    """Return a trial's figures."""
    last = standing.finished
    return TrialFigures(
        number=standing.trial.number,
        place=standing.place,
        bracket=standing.trial.bracket,
        values=standing.trial.values,
        same_as=standing.trial.same_as,
        state=standing.state,
        rung=standing.rung,
        reason=standing.reason,
        score=standing.score,
        validation_loss=last.outcome.validation_loss if last and last.outcome else None,
        step=standing.step,
        updates=standing.updates,
        seconds=sum(standing.seconds(stop) or 0.0 for stop in standing.stops),
        stops=tuple(
            StopFigures(
                step=stop.step,
                score=stop.score,
                validation_loss=stop.outcome.validation_loss if stop.outcome else None,
            )
            for stop in standing.stops
        ),
        curve=standing.curve,
    )


def decision_figures(decision: Decision) -> DecisionFigures:
    """Return a decision's figures."""
    return DecisionFigures(
        bracket=decision.bracket,
        rung=decision.rung,
        step=decision.step,
        entered=decision.entered,
        kept=tuple(decision.kept),
        dropped=tuple(decision.dropped),
        best=min(decision.kept.values()),
        cut=decision.cut,
        best_dropped=min(decision.dropped.values(), default=None),
    )


def importance_by_rung(trials: Sequence[TrialFigures], view: View) -> list[Importance]:
    """Return how much settings matter at each rung that enough trials went through, the one with most trials first."""
    own, settings = [trial for trial in trials if trial.is_own], settings_of(view.record)
    often = Counter(stop.step for trial in own for stop in trial.stops if stop.score is not None)
    steps = [step for step, _ in sorted(often.items(), key=lambda item: (-item[1], item[0] or 0))]
    return [importance(own, settings, step) for place, step in enumerate(steps) if not place or often[step] >= LEAST]


def spent(folder: Folder, view: View, trials: Sequence[TrialFigures]) -> Spent:
    """Return what the sweep cost, and what its grid would have."""
    ends = [float(steps[-1]) for steps in view.record.rungs if steps] or whole_trainings(view)
    whole = round(max(ends)) if ends else None
    own = [trial for trial in trials if trial.is_own]
    trainable = sum(trial.state != "refused" for trial in trials)
    return Spent(
        updates=sum(trial.updates for trial in own),
        grid_updates=len(own) * whole if whole else None,
        whole_grid_updates=trainable * whole if whole else None,
        seconds=sum(trial.seconds for trial in own),
        wall_seconds=wall_seconds(folder, view),
    )


def wall_seconds(folder: Folder, view: View) -> float | None:
    """Return the time between the first job's start and the last one's end, with all that interrupted them."""
    jobs = [folder.job(each.trial.number, stop.step).path for each in view.own for stop in each.stops]
    begun = [path.stat().st_mtime for job in jobs if (path := job / TASK).is_file()]
    ended = [path.stat().st_mtime for job in jobs if (path := job / OUTCOME).is_file()]
    return max(0.0, max(ended) - min(begun)) if begun and ended else None
