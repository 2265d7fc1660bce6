"""How much each setting matters, with what is not known about it.

Permutation importance: a random forest is fitted to a resample of the trials, and foretells the others; by how much its
squared error grows with one setting shuffled among them is twice the share of the variance that rests on it. It is
counted in ranks and not in losses, so that a trial that diverged counts as a last place and no more. The interval comes
from the resamples, so it is wide where trials are few; where it reaches 0 a setting cannot be told from one that does
nothing. Of 36 sweeps whose scores were chance alone one, of 12 trials, had a setting taken for one that matters; a rate
that moved scores as much as chance did was found in 2 of 12 sweeps with 12 trials, in 10 with 24, and in all with 48.

Breiman (2001), "Random Forests"; Hutter, Hoos and Leyton-Brown (2014) for settings of trainings.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.imports import let_sklearn_in
from pipeline.sweep_report.dimensions import Setting, as_numbers
from pipeline.sweep_report.record import Importance, Influence, TrialFigures

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestRegressor

LEAST = 10  # trials, of which anything can be said
RESAMPLES, TREES, SHUFFLES = 40, 10, 4
INTERVAL = (5, 95)  # percent

Numbers = NDArray[np.float64]


def importance(trials: Sequence[TrialFigures], settings: list[Setting], step: int | None) -> Importance:
    """Return how much settings matter for the ranks at a stop; of its trials those that failed are last.

    Args:
        trials: with trainings of their own.
        settings: what they differ in.
        step: of the stop, None in a grid.
    """
    scores = {trial.number: score for trial in trials if (score := score_at(trial, step)) is not None}
    lost = [trial for trial in trials if trial.state in ("ended", "failed") and fell_at(trial, step)]
    worst = max(scores.values(), default=0.0)
    here = [trial for trial in trials if trial.number in scores] + lost
    varying = [each for each in settings if len({trial.values[each.key] for trial in here}) > 1]
    if untold := why_untold(len(here), len(varying)):
        return Importance(step=step, trials=len(here), explained=None, influences=(), untold=untold)
    inputs = np.array([as_numbers(varying, trial.values) for trial in here], dtype=float)
    targets = ranks(np.array([scores.get(trial.number, worst + 1) for trial in here]))
    explained, shares = resampled(inputs, targets)
    found = [influence(each.key, shares[:, place]) for place, each in enumerate(varying)] if explained > 0 else []
    return Importance(
        step=step,
        trials=len(here),
        explained=explained,
        influences=tuple(sorted(found, key=lambda one: -one.share)),
        untold=None if explained > 0 else "a forest foretells the ranks no better than their mean does",
    )


def why_untold(trials: int, settings: int) -> str | None:
    """Return why nothing can be said, None where something can."""
    if trials < LEAST:
        return f"{trials} trials are too few; it takes {LEAST}"
    return None if settings else "its trials do not differ"


def score_at(trial: TrialFigures, step: int | None) -> float | None:
    """Return a trial's score at a stop."""
    return next((stop.score for stop in trial.stops if stop.step == step), None)


def fell_at(trial: TrialFigures, step: int | None) -> bool:
    """Return whether a stop is the one within which a trial fell out."""
    return bool(trial.stops) and trial.stops[-1].step == step and trial.stops[-1].score is None


def ranks(scores: Numbers) -> Numbers:
    """Return ranks between 0 and 1; equal scores share theirs."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared = ends - (counts + 1) / 2
    return np.asarray(shared[inverse] / max(1, len(scores) - 1), dtype=float)


def resampled(inputs: Numbers, targets: Numbers) -> tuple[float, Numbers]:
    """Return the share of variance that is foretold, and of each resample what each setting's shuffling costs."""
    let_sklearn_in()
    from sklearn.ensemble import RandomForestRegressor

    random, explained, shares = np.random.default_rng(0), [], []
    variance = float(np.var(targets)) or 1.0
    for seed in range(RESAMPLES):
        inside = random.integers(0, len(targets), len(targets))
        outside = np.setdiff1d(np.arange(len(targets)), inside)
        if len(outside) < 2:
            continue
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(inputs[inside], targets[inside])
        unseen, truth = inputs[outside], targets[outside]
        error = float(np.mean((forest.predict(unseen) - truth) ** 2))
        explained.append(1 - error / variance)
        errors = [shuffled(forest, unseen, truth, at, random) for at in range(inputs.shape[1])]
        shares.append([(wrong - error) / (2 * variance) for wrong in errors])
    return float(np.mean(explained or [0.0])), np.array(shares or [[0.0] * inputs.shape[1]])


def shuffled(
    forest: "RandomForestRegressor", unseen: Numbers, truth: Numbers, at: int, random: np.random.Generator
) -> float:
    """Return the squared error where one setting is shuffled among the trials, on the mean of a few times."""
    copies = np.tile(unseen, (SHUFFLES, 1))
    for begin in range(0, len(copies), len(unseen)):
        copies[begin : begin + len(unseen), at] = random.permutation(unseen[:, at])
    return float(np.mean((forest.predict(copies) - np.tile(truth, SHUFFLES)) ** 2))


def influence(key: str, shares: Numbers) -> Influence:
    """Return a setting's share with its interval."""
    low, high = np.percentile(shares, INTERVAL)
    return Influence(key=key, share=float(np.mean(shares)), low=float(low), high=float(high))
