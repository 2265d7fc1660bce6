"""Charts of a sweep as coordinates, which sweep.html.jinja draws as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from textwrap import wrap
from typing import Literal

from pipeline.report.charts import HEIGHT, WIDTH, Axis
from pipeline.sweep_report.dimensions import Setting
from pipeline.sweep_report.importance import score_at
from pipeline.sweep_report.record import Importance, SweepReport, TrialFigures
from pipeline.sweeps.names import loss_text

WIDE, HIGH = 960, 360  # of a chart as wide as the page
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 34, 40
FENCE = 1.5  # times the distance between the quartiles: what lies further out is drawn at the border
BAND = 0.7  # of the room between two values, over which the lines through one are spread
MOST_TICKS = 12  # of an axis with values
TEXT = 16  # letters of a value on an axis
GOLDEN = 0.618034  # by which dots are spread evenly, and in no order that could be taken for one
APART = 130  # of two axes, at least
NAME = 14  # letters of a name beside an interval
ROW = 30  # height of a setting's interval

Spot = tuple[float, float]
Fate = Literal["winner", "last", "dropped", "out"]


@dataclass(frozen=True)
class Line:
    """A trial's line."""

    trial: int
    fate: Fate
    spots: list[Spot]
    good: int  # from 0, the last place, to 100, the first
    label: str

    @property
    def bends(self) -> str:
        """The line as a path that leaves and meets each axis level."""
        path = [f"M{self.spots[0][0]} {self.spots[0][1]}"]
        for (x0, y0), (x1, y1) in zip(self.spots, self.spots[1:], strict=False):
            middle = round((x0 + x1) / 2, 1)
            path.append(f"C{middle} {y0} {middle} {y1} {x1} {y1}")
        return "".join(path)


@dataclass(frozen=True)
class Curves:
    """Losses of all trials over their steps."""

    width: int
    height: int
    x: Axis
    y: Axis
    ticks: list[tuple[float, str]]  # of steps
    rungs: list[tuple[float, str]]
    lines: list[Line]
    beyond: int  # lines that leave the picture


@dataclass(frozen=True)
class Scale:
    """An axis among parallel ones."""

    x: float
    name: list[str]  # in lines
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Parallel:
    """Trials as lines over an axis for each setting, and one for what came of them."""

    width: int
    height: int
    top: int
    floor: int
    scales: list[Scale]
    lines: list[Line]


@dataclass(frozen=True)
class Dot:
    """A trial among those with the same value."""

    x: float
    y: float
    fate: Fate
    label: str


@dataclass(frozen=True)
class Strip:
    """The scores at a rung by a setting's values."""

    name: str
    width: int
    height: int
    y: Axis
    ticks: list[tuple[float, str, str]]  # of the values: where, the value, how many trials
    medians: list[tuple[float, float, float]]  # from, to, how high
    dots: list[Dot]


@dataclass(frozen=True)
class Interval:
    """How much a setting matters."""

    name: str
    y: float
    low: float
    high: float
    at: float
    is_sure: bool
    text: str


@dataclass(frozen=True)
class Intervals:
    """How much each setting matters."""

    width: int
    height: int
    x: Axis
    floor: float
    rows: list[Interval]


def fate(trial: TrialFigures, winner: int | None) -> Fate:
    """Return how a trial's line is drawn."""
    if trial.number == winner:
        return "winner"
    if trial.state in ("ended", "failed", "refused"):
        return "out"
    return "dropped" if trial.state == "dropped" else "last"


def label(trial: TrialFigures, settings: Sequence[Setting], rungs: int) -> str:
    """Return what is said of a trial that is pointed at."""
    values = ", ".join(f"{each.name} {trial.values.get(each.key, '-')}" for each in settings)
    state = f"{trial.state} at rung {trial.rung} of {rungs}" if rungs > 1 and trial.state == "dropped" else trial.state
    return f"trial {trial.number}: {values}; {loss_text(trial.score)}, {state}"


def reach(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest value, and the highest that is not far out."""
    low, high = min(values), max(values)
    if len(values) >= 4:
        first, _, third = quantiles(values, n=4)
        high = min(high, third + FENCE * (third - first)) if third > first else high
    return low, high if high > low else low + 1e-3


def curves(report: SweepReport, settings: Sequence[Setting]) -> Curves | None:
    """Return the validation losses over all rungs, the training losses where there are none; None without any two."""
    rungs = report.rungs[0]
    lines = {trial.number: losses(trial) for trial in report.own}
    points = [point for line in lines.values() for point in line]
    if len(points) < 2:
        return None
    place = math.log2 if rungs else float
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    x = Axis(place(first), place(max(last, first + 1)), LEFT, WIDE - RIGHT)
    low = min(loss for _, loss in points)
    high = reach([max(loss for _, loss in line) for line in lines.values() if line])[1]
    y = Axis(low, high, HIGH - BOTTOM, TOP)
    drawn = [
        Line(
            trial=trial.number,
            fate=fate(trial, report.winner),
            spots=[(x(place(step)), y(min(loss, high))) for step, loss in lines[trial.number]],
            good=goodness(trial, report),
            label=label(trial, settings, len(rungs)),
        )
        for trial in reversed(report.own)
        if lines[trial.number]
    ]
    marks = [(x(place(step)), f"{step:,}") for step in rungs if first <= step <= last]
    beyond = sum(any(loss > high for _, loss in line) for line in lines.values())
    return Curves(WIDE, HIGH, x, y, marks or x.ticks(8, whole=True), marks, drawn, beyond)


def losses(trial: TrialFigures) -> list[tuple[int, float]]:
    """Return a trial's losses by step, behind the first: of validation, else of training."""
    found = {point.step: point.validation_loss for point in trial.curve if point.validation_loss is not None}
    found |= {stop.step: stop.validation_loss for stop in trial.stops if stop.step and stop.validation_loss is not None}
    if not found:
        found = {point.step: point.train_loss for point in trial.curve if point.train_loss is not None}
    return [(step, loss) for step, loss in sorted(found.items()) if step > 0]


def goodness(trial: TrialFigures, report: SweepReport) -> int:
    """Return a trial's place as 100 for the first to 0 for the last."""
    last = max(each.place for each in report.trials)
    return round(100 * (last - trial.place) / (last - 1)) if last > 1 else 100


def parallel(report: SweepReport, settings: Sequence[Setting]) -> Parallel | None:
    """Return the trials over their settings; None where no trial has a score, or they differ in nothing."""
    trials = [trial for trial in reversed(report.trials) if trial.same_as is None]
    scored = [trial.score for trial in trials if trial.score is not None]
    if not scored or not settings:
        return None
    count = len(settings)
    width = max(WIDE, APART * (count + 1))
    xs = [round(60 + place * (width - 130) / count, 1) for place in range(count + 1)]
    floor, top = HIGH - 60, 52
    columns = [column(trials, each, floor, top) for each in settings]
    low, high = reach(scored)
    y = Axis(low, high, floor, top + 30)
    ends = {t.number: y(min(t.score, high)) if t.score is not None else float(top) for t in trials}
    scales = [Scale(x, in_lines(each.name), ticks(each, floor, top)) for x, each in zip(xs, settings, strict=False)]
    none = [(float(top), "none")] if len(scored) < len(trials) else []
    scales.append(Scale(xs[-1], [report.measure if len(report.measure) < TEXT else "score"], [*none, *y.ticks(5)]))
    lines = [
        Line(
            trial=trial.number,
            fate=fate(trial, report.winner),
            spots=list(zip(xs, [*(heights[trial.number] for heights in columns), ends[trial.number]], strict=True)),
            good=goodness(trial, report),
            label=label(trial, settings, len(report.rungs[0])),
        )
        for trial in trials
    ]
    return Parallel(width, HIGH, top, floor, scales, lines)


def column(trials: Sequence[TrialFigures], setting: Setting, floor: float, top: float) -> dict[int, float]:
    """Return how high each trial meets a setting's axis; those with one value are spread, the better the higher."""
    if setting.bounds is not None:
        y = axis(setting, floor, top)
        return {trial.number: y(setting.code(trial.values[setting.key])) for trial in trials}
    heights: dict[int, float] = {}
    for middle, value in zip(middles(setting, floor, top), setting.values, strict=True):
        here = [trial.number for trial in trials if trial.values.get(setting.key) == value]
        band = BAND * (floor - top) / len(setting.values)
        for place, trial in enumerate(here):
            share = (place + 0.5) / len(here) - 0.5
            heights[trial] = round(middle - share * band, 1)
    return heights


def middles(setting: Setting, floor: float, top: float) -> list[float]:
    """Return how high each value stands, the first one lowest."""
    room = (floor - top) / len(setting.values)
    return [round(floor - (place + 0.5) * room, 1) for place in range(len(setting.values))]


def axis(setting: Setting, floor: float, top: float) -> Axis:
    """Return an interval's axis, in logarithms if it is drawn so."""
    low, high = (math.log(bound) if setting.is_log else bound for bound in setting.bounds or (0, 1))
    return Axis(low, high, floor, top)


def ticks(setting: Setting, floor: float, top: float) -> list[tuple[float, str]]:
    """Return the values, or round numbers of an interval."""
    if setting.bounds is None:
        every = math.ceil(len(setting.values) / MOST_TICKS)
        spots = list(zip(middles(setting, floor, top), setting.values, strict=True))
        return [(y, shortened(value)) for y, value in spots[::every]]
    y = axis(setting, floor, top)
    if not setting.is_log:
        return y.ticks(6)
    low, high = (math.log10(bound) for bound in setting.bounds)
    tens = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    return [(y(math.log(value)), f"{value:g}") for value in dict.fromkeys([*setting.bounds, *tens])]


def in_lines(name: str) -> list[str]:
    """Return a name in lines that there is room for between two axes."""
    return [shortened(line) for line in wrap(name.replace("_", " "), TEXT, break_long_words=False)]


def shortened(value: str, most: int = TEXT) -> str:
    """Return a text as there is room for on an axis."""
    return value if len(value) <= most else f"{value[: most - 1]}…"


def strips(report: SweepReport, settings: Sequence[Setting], step: int | None) -> list[Strip]:
    """Return the scores at a stop by each setting's values."""
    scores = {t.number: score for t in report.own if (score := score_at(t, step)) is not None}
    if len(scores) < 2:
        return []
    return [strip(report, each, scores) for each in settings if len(each.values) > 1]


def strip(report: SweepReport, setting: Setting, scores: Mapping[int, float]) -> Strip:
    """Return the scores by a setting's values."""
    low, high = reach(list(scores.values()))
    floor = HEIGHT - BOTTOM - 18
    y = Axis(low, high, floor, 12)
    trials = [trial for trial in report.own if trial.number in scores]
    if setting.bounds is not None:
        x = axis(setting, LEFT, WIDTH - RIGHT)
        places = {trial.number: x(setting.code(trial.values[setting.key])) for trial in trials}
        marks = [(at, text, "") for at, text in ticks(setting, LEFT, WIDTH - RIGHT)]
        medians: list[tuple[float, float, float]] = []
    else:
        places, marks, medians = by_value(trials, setting, scores, y)
    dots = [
        Dot(
            places[trial.number],
            y(min(scores[trial.number], high)),
            fate(trial, report.winner),
            f"trial {trial.number}: {setting.name} {trial.values[setting.key]}; {loss_text(scores[trial.number])}",
        )
        for trial in reversed(trials)
    ]
    return Strip(setting.name, WIDTH, HEIGHT, y, marks, medians, dots)


def by_value(
    trials: Sequence[TrialFigures], setting: Setting, scores: Mapping[int, float], y: Axis
) -> tuple[dict[int, float], list[tuple[float, str, str]], list[tuple[float, float, float]]]:
    """Return where trials stand that have listed values, the marks of the values, and their medians."""
    room = (WIDTH - RIGHT - LEFT) / len(setting.values)
    every = math.ceil(len(setting.values) / MOST_TICKS)
    places: dict[int, float] = {}
    marks, medians = [], []
    for number, value in enumerate(setting.values):
        middle = LEFT + (number + 0.5) * room
        here = sorted(trial.number for trial in trials if trial.values.get(setting.key) == value)
        for place, trial in enumerate(here):
            places[trial] = round(middle + ((place + 0.5) * GOLDEN % 1 - 0.5) * room * 0.6, 1)
        if number % every == 0:
            marks.append((round(middle, 1), shortened(value), f"n {len(here)}"))
        if here:
            height = y(min(median(scores[trial] for trial in here), y.high))
            medians.append((round(middle - room * 0.36, 1), round(middle + room * 0.36, 1), height))
    return places, marks, medians


def intervals(found: Importance, settings: Sequence[Setting]) -> Intervals | None:
    """Return how much each setting matters; None where nothing can be said."""
    if not found.influences:
        return None
    names = {each.key: each.name for each in settings}
    low = min(0.0, *(each.low for each in found.influences))
    high = max(0.1, *(each.high for each in found.influences))
    x = Axis(low, high, 130, WIDTH - 60)
    rows = [
        Interval(
            name=shortened(names[each.key], NAME),
            y=20 + place * ROW,
            low=x(each.low),
            high=x(each.high),
            at=x(each.share),
            is_sure=each.is_sure,
            text=f"{each.share:z.2f}",
        )
        for place, each in enumerate(found.influences)
    ]
    return Intervals(WIDTH, len(rows) * ROW + BOTTOM + 4, x, len(rows) * ROW, rows)
