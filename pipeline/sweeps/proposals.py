"""Trials proposed by Optuna's samplers, from what the brackets before have found (BOHB's order of things).

Falkner, Klein and Hutter (2018), "BOHB": a sampler learns between the brackets of Hyperband.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from common.errors import UserError
from pipeline.sweeps.plan import required_trials
from pipeline.sweeps.ranking import score
from pipeline.sweeps.record import Folder, SweepRecord, Trial
from pipeline.sweeps.rungs import bracket_sizes
from pipeline.sweeps.settings import PLACE, SweepSettings
from pipeline.sweeps.space import Dimension, Values

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

FAILED = 1e9  # a score for those that have none: worse than any


def propose(
    record: SweepRecord, folder: Folder, settings: SweepSettings, space: Sequence[Dimension], bracket: int
) -> list[Values]:
    """Return the trials of a bracket, the same for the same outcomes so far.

    Raises:
        UserError: Optuna is not installed, or there is no number of trials.
    """
    trials = required_trials(settings)
    try:
        import optuna
    except ImportError:
        raise UserError(
            f"{PLACE}.sampler is {settings.sampler}, which is Optuna's: pip install 'optuna>=5,<6'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler(settings, bracket))
    distributions = {each.key: distribution(each) for each in space}
    for trial in record.trials:
        study.add_trial(told(trial, record, folder, settings, space, distributions))
    count = bracket_sizes(trials, record.rungs)[bracket]
    return [asked(study, space, distributions) for _ in range(count)]


def sampler(settings: SweepSettings, bracket: int) -> "BaseSampler":
    """Return Optuna's sampler of that name, seeded."""
    from optuna import samplers

    kinds = {
        "tpe": samplers.TPESampler,
        "gp": samplers.GPSampler,
        "cmaes": samplers.CmaEsSampler,
        "qmc": samplers.QMCSampler,
    }
    return kinds[settings.sampler](seed=settings.seed + bracket)


def distribution(each: Dimension) -> "BaseDistribution":
    """Return a dimension in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not each.is_interval:
        return CategoricalDistribution(each.values)
    if each.integer:
        return IntDistribution(round(each.low), round(each.high), log=each.log)
    return FloatDistribution(each.low, each.high, log=each.log)


def told(
    trial: Trial,
    record: SweepRecord,
    folder: Folder,
    settings: SweepSettings,
    space: Sequence[Dimension],
    distributions: Mapping[str, "BaseDistribution"],
) -> "FrozenTrial":
    """Return a trial as Optuna knows it: its score at each rung, and whether it went to the last one."""
    from optuna.trial import TrialState, create_trial

    own = trial.number if trial.same_as is None else trial.same_as
    steps = record.rungs[record.trials[own].bracket]
    scores = {step: score(folder.job(own, step).outcome(), settings.weights) for step in steps}
    known = {step: value for step, value in scores.items() if value is not None}
    done = steps[-1] in known
    return create_trial(
        params={each.key: parameter(each, trial.values[each.key]) for each in space},
        distributions=dict(distributions),
        intermediate_values=known or {steps[0]: FAILED},
        state=TrialState.COMPLETE if done else TrialState.PRUNED,
        value=known[steps[-1]] if done else None,
    )


def parameter(each: Dimension, value: str) -> str | int | float:
    """Return a trial's value as its distribution has it."""
    if not each.is_interval:
        return value
    return int(value) if each.integer else float(value)


def asked(study: "Study", space: Sequence[Dimension], distributions: Mapping[str, "BaseDistribution"]) -> Values:
    """Return what the sampler proposes next."""
    trial = study.ask(dict(distributions))
    return {
        each.key: str(trial.params[each.key]) if not each.is_interval else each.written(trial.params[each.key])
        for each in space
    }
