"""Searches over a space whose losses are known: the sweep that halves, as it ran, and the peers' rules.

Optuna's SuccessiveHalvingPruner runs in a study over the trials in a seeded order, Ray Tune's ASHAScheduler is asked as
Tune asks it, result by result: both are their own code, over losses that were measured before. Both decide as results
come, one trial after another: neither goes back to a trial that it has stopped, so both let more trials go on at first
than a rule that waits for the rung.

Of R5's 108 trials 60 differ: batch times accumulation is what one update learns from. The peers train twins twice; they
are counted once for them, too.
"""

import math
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from pipeline.core.trials import LOG
from pipeline.sweeps.progress import View, look
from pipeline.sweeps.record import Folder
from pipeline.sweeps.standings import Standing

PENDING = ("waiting", "running", "stopped", "passed")  # states of trials in a sweep that is not over
RESUMED = re.compile(r"resuming from \S*checkpoint-(\d+)")


@dataclass(frozen=True)
class Losses:
    """The validation losses of a space's trials at the rungs."""

    rungs: tuple[int, ...]
    eta: int
    by_trial: tuple[dict[int, float], ...]  # one that has failed has none
    same_as: tuple[int, ...]  # for each trial the first one whose training is the same

    @property
    def last(self) -> int:
        """The steps of a whole training."""
        return self.rungs[-1]

    @property
    def best(self) -> float:
        """What there is to find."""
        return min(losses[self.last] for losses in self.by_trial if self.last in losses)

    @property
    def plain_steps(self) -> int:
        """What the grid takes that trains every trial."""
        return len(self.by_trial) * self.last

    @property
    def distinct_steps(self) -> int:
        """What the grid takes that trains twins once."""
        return len(set(self.same_as)) * self.last


@dataclass(frozen=True)
class Search:
    """What a search has found, and what it took."""

    loss: float | None  # of its best trial at the last rung; None if none came there
    steps: int
    steps_once: int  # with twins counted once


@dataclass(frozen=True)
class Seed:
    """All searches of one seed."""

    seed: int
    trials: int
    distinct: int
    plain_steps: int
    distinct_steps: int
    best: float  # of the grid
    searches: dict[str, Search]
    checked: int  # losses of ours at rungs that were compared with the grid's
    equal: int  # of these, to the bit
    largest_difference: float


@dataclass
class Spent:
    """Counts the steps of a search."""

    losses: Losses
    plain: int = 0
    once: int = 0
    trained: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def train(self, trial: int, begin: int, end: int) -> None:
        """Count a trial's steps between two rungs; those that a twin has made cost nothing where twins count once."""
        own = self.losses.same_as[trial]
        self.plain += end - begin
        self.once += max(0, end - max(begin, self.trained[own]))
        self.trained[own] = max(self.trained[own], end)


def compared(seed: int, grid: Folder, halving: Folder) -> Seed:
    """Return what the sweep that halves and the peers found in a grid, and for how many steps."""
    view = look(halving)
    losses = measured(look(grid), view.record.rungs[0], view.settings.eta)
    ours = searched(halving, view)
    searches = {"ours": ours, "optuna": optuna_rule(losses, seed)}
    searches["optuna at our steps"] = optuna_rule(losses, seed, ours.steps)
    if has_ray():
        searches["asha"] = asha(losses, seed)
        searches["asha at our steps"] = asha(losses, seed, ours.steps)
    differences = [abs(a - b) for a, b in pairs_at_rungs(view, losses)]
    return Seed(
        seed=seed,
        trials=len(losses.by_trial),
        distinct=len(set(losses.same_as)),
        plain_steps=losses.plain_steps,
        distinct_steps=losses.distinct_steps,
        best=losses.best,
        searches=searches,
        checked=len(differences),
        equal=differences.count(0.0),
        largest_difference=max(differences, default=0.0),
    )


def is_over(folder: Folder) -> bool:
    """Return whether nothing of a sweep is left to do."""
    return folder.record_path.is_file() and not any(each.state in PENDING for each in look(folder).own)


def stops(rungs: tuple[int, int], *, whole: bool) -> list[str]:
    """Return the settings by which trials stop at rungs, given the first and the last, or go to the end."""
    if whole:
        return ["hydra.sweeper.min_steps=null", "hydra.sweeper.max_steps=null", f"train.max_steps={rungs[1]}"]
    return [f"hydra.sweeper.min_steps={rungs[0]}", f"hydra.sweeper.max_steps={rungs[1]}"]


def measured(grid: View, rungs: Sequence[int], eta: int) -> Losses:
    """Return a grid's losses at the rungs; twins have their twin's."""
    own = {each.trial.number: validation_losses(each) for each in grid.own}
    same_as = [number if (twin := trial.same_as) is None else twin for number, trial in enumerate(grid.record.trials)]
    return Losses(tuple(rungs), eta, tuple(own.get(number, {}) for number in same_as), tuple(same_as))


def validation_losses(standing: Standing) -> dict[int, float]:
    """Return a trial's validation losses by step."""
    return {point.step: point.validation_loss for point in standing.curve if point.validation_loss is not None}


def searched(folder: Folder, view: View) -> Search:
    """Return what a sweep that ran has found, with the steps that it really trained."""
    best, last = view.best, view.record.rungs[0][-1]
    steps = sum(steps_trained(folder, each) for each in view.own)
    return Search(validation_losses(best).get(last) if best else None, steps, steps)


def steps_trained(folder: Folder, standing: Standing) -> int:
    """Return the updates that a trial's jobs have made, each from the checkpoint that it first said to begin with."""
    total = 0
    for stop in standing.stops:
        log = folder.job(standing.trial.number, stop.step).path / LOG
        resumed = RESUMED.search(log.read_text(encoding="utf-8", errors="replace"))
        total += max((point.step for point in stop.points), default=0) - (int(resumed[1]) if resumed else 0)
    return total


def pairs_at_rungs(view: View, losses: Losses) -> Iterator[tuple[float, float]]:
    """Yield each loss of a sweep at a rung, and the grid's at the same step."""
    for each in view.own:
        found = validation_losses(each)
        for step in losses.rungs:
            if step in found and step in losses.by_trial[each.trial.number]:
                yield found[step], losses.by_trial[each.trial.number][step]


def optuna_rule(losses: Losses, seed: int, budget: float = math.inf) -> Search:
    """Return what Optuna's SuccessiveHalvingPruner finds over all trials in a seeded order.

    Args:
        losses: of the space.
        seed: of the order.
        budget: steps, twins counted once, after which it ends.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    numbers, spent = list(range(len(losses.by_trial))), Spent(losses)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=losses.rungs[0], reduction_factor=losses.eta)
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"trial": numbers}, seed=seed), pruner=pruner)

    def train(trial: optuna.Trial) -> float:
        number = trial.suggest_categorical("trial", numbers)
        for begin, step in zip((0, *losses.rungs), losses.rungs, strict=False):
            if spent.once >= budget:
                study.stop()
                raise optuna.TrialPruned
            spent.train(number, begin, step)
            trial.report(losses.by_trial[number].get(step, math.nan), step)
            if step < losses.last and trial.should_prune():
                raise optuna.TrialPruned
        return losses.by_trial[number].get(losses.last, math.nan)

    study.optimize(train, n_trials=len(numbers))
    ended = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    return Search(min((trial.value for trial in ended), default=None), spent.plain, spent.once)  # type: ignore[type-var]


def asha(losses: Losses, seed: int, budget: float = math.inf) -> Search:
    """Return what Ray Tune's ASHAScheduler finds; arguments as for `optuna_rule`."""
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    scheduler = ASHAScheduler(
        time_attr="steps",
        metric="loss",
        mode="min",
        max_t=losses.last,
        grace_period=losses.rungs[0],
        reduction_factor=losses.eta,
    )
    numbers, spent, ended = list(range(len(losses.by_trial))), Spent(losses), list[float]()
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        trial = SimpleNamespace(trial_id=str(number))
        scheduler.on_trial_add(None, trial)
        for begin, step in zip((0, *losses.rungs), losses.rungs, strict=False):
            loss = losses.by_trial[number].get(step)
            if loss is None or spent.once >= budget:
                break
            spent.train(number, begin, step)
            if step == losses.last:
                ended.append(loss)
            if scheduler.on_trial_result(None, trial, {"steps": step, "loss": loss}) == TrialScheduler.STOP:
                break
        scheduler.on_trial_remove(None, trial)
    return Search(min(ended, default=None), spent.plain, spent.once)


def has_ray() -> bool:
    """Return whether Ray Tune is installed."""
    try:
        import ray.tune  # noqa: F401
    except ImportError:
        return False
    return True
