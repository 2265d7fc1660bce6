"""What a sweep has not tried, and where its best trial says that it should have gone on."""

import itertools
import math
from collections.abc import Iterator, Sequence

from common.words import counted
from pipeline.sweep_report.dimensions import Setting, said
from pipeline.sweep_report.record import TrialFigures

EDGE = 0.05  # of an interval's width
NAMED = 3  # pairs


def untried(trials: Sequence[TrialFigures], settings: Sequence[Setting], rungs: int) -> tuple[str, ...]:
    """Return a sentence for each part of the space that no trial covers, or that was given up on little evidence.

    Args:
        trials: the best first.
        settings: what they differ in.
        rungs: how many there are.
    """
    listed = [each for each in settings if each.bounds is None]
    return (
        *edges(trials, settings),
        *combinations_left_out(trials, listed, whole=len(listed) == len(settings)),
        *pairs_left_out(trials, listed),
        *values_without_result(trials, listed),
        *(values_given_up_early(trials, listed) if rungs > 1 else ()),
    )


def edges(trials: Sequence[TrialFigures], settings: Sequence[Setting]) -> Iterator[str]:
    """Yield the settings of which the best trial has the lowest or highest value that anything came of."""
    scored = [trial for trial in trials if trial.score is not None]
    for each in settings:
        values = sorted({trial.values[each.key] for trial in scored}, key=each.code)
        if not each.is_numeric or len(values) < 2 or not (which := edge(each, scored[0].values[each.key], values)):
            continue
        where = "of its values" if each.bounds is None else "end of its interval"
        further = "lower" if which == "lowest" else "higher"
        best = said(each, scored[0].values[each.key])
        yield f"The best trial has {best}, the {which} {where}; no {further} one has a result."


def edge(setting: Setting, value: str, values: Sequence[str]) -> str | None:
    """Return whether a value is the `lowest` or `highest`, of an interval nearly."""
    if setting.bounds is None:
        return {0: "lowest", len(values) - 1: "highest"}.get(values.index(value))
    low, high = (math.log(bound) if setting.is_log else bound for bound in setting.bounds)
    share = (setting.code(value) - low) / (high - low)
    return "lowest" if share < EDGE else "highest" if share > 1 - EDGE else None


def combinations_left_out(trials: Sequence[TrialFigures], listed: Sequence[Setting], *, whole: bool) -> Iterator[str]:
    """Yield how many combinations of listed values no trial has."""
    count = math.prod(len(each.values) for each in listed)
    had = len({tuple(trial.values.get(each.key) for each in listed) for trial in trials})
    if listed and had < count:
        of = "" if whole else " of listed values"
        yield f"{count - had:,} of {counted(count, 'combination')}{of} were left out of the sample."


def pairs_left_out(trials: Sequence[TrialFigures], listed: Sequence[Setting]) -> Iterator[str]:
    """Yield which values of two settings no trial has together."""
    missing, count = [], 0
    for one, other in itertools.combinations(listed, 2):
        had = {(trial.values.get(one.key), trial.values.get(other.key)) for trial in trials}
        for pair in itertools.product(one.values, other.values):
            count += 1
            if pair not in had:
                missing.append(f"{said(one, pair[0])} with {said(other, pair[1])}")
    if missing:
        named = ", ".join(missing[:NAMED]) + (" and others" if len(missing) > NAMED else "")
        yield f"{len(missing)} of {counted(count, 'pair')} of values never met: {named}."


def values_without_result(trials: Sequence[TrialFigures], listed: Sequence[Setting]) -> Iterator[str]:
    """Yield the values with which every trial came to nothing, so that they are not known to be worse."""
    for each, value, having in by_value(trials, listed):
        if having and all(trial.state in ("failed", "refused") for trial in having):
            yield f"With {said(each, value)} all of {counted(len(having), 'trial')} failed or were refused."


def values_given_up_early(trials: Sequence[TrialFigures], listed: Sequence[Setting]) -> Iterator[str]:
    """Yield the values that no trial took beyond its first rung: what they do later is not known."""
    for each, value, having in by_value(trials, listed):
        done = [trial for trial in having if trial.state in ("dropped", "ended")]
        if done and len(done) == len(having) and all(len(trial.stops) == 1 for trial in done):
            steps = max(trial.step for trial in done)
            yield f"With {said(each, value)} no trial of {len(done)} went beyond {counted(steps, 'step')}."


def by_value(
    trials: Sequence[TrialFigures], listed: Sequence[Setting]
) -> Iterator[tuple[Setting, str, list[TrialFigures]]]:
    """Yield each value of each setting with the trials that have it."""
    for each in listed:
        for value in each.values if len(each.values) > 1 else ():
            yield each, value, [trial for trial in trials if trial.values.get(each.key) == value]
