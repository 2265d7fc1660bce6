"""Charts as coordinates, which page.html.jinja draws as SVG: so they take on its colours, light or dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.ticker import MaxNLocator

from common.words import counted
from pipeline.report.record import Check, Point

WIDTH, HEIGHT = 440, 240  # of a chart, in units of about a pixel
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 10, 40
PANEL = 76  # height of a histogram
BINS = 32
IN_NATS = ("gain", "forgetting ")  # how checks begin whose figures are no shares


@dataclass(frozen=True)
class Axis:
    """Maps values between `low` and `high` to coordinates between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return a value's coordinate."""
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int, *, whole: bool = False) -> list[tuple[float, str]]:
        """Round values on the axis: the coordinate of each, and the value as text."""
        values = MaxNLocator(most, integer=whole).tick_values(self.low, self.high)
        return [(self(value), f"{value:,.6g}") for value in values if self.low <= value <= self.high]


def curves(curve: Sequence[Point]) -> dict[str, Any] | None:
    """Return training and validation loss over the steps; None where there are no two points of either.

    Args:
        curve: points with `step` and `loss` or `validation_loss`, in nats a token.
    """
    lines = {name: _known(curve, key) for name, key in (("training", "loss"), ("validation", "validation_loss"))}
    points = [point for line in lines.values() for point in line]
    if max(map(len, lines.values())) < 2:
        return None
    x = Axis(0, max(step for step, _ in points), LEFT, WIDTH - RIGHT)
    losses = [loss for _, loss in points]
    y = Axis(min(losses), max(losses), HEIGHT - BOTTOM, TOP)
    drawn = {name: [(x(step), y(loss)) for step, loss in line] for name, line in lines.items() if line}
    return {"width": WIDTH, "height": HEIGHT, "x": x, "y": y, "lines": drawn}


@dataclass(frozen=True)
class Course:
    """How the bounds of a check's figure closed in on one side of its threshold, or have not yet."""

    title: str
    caption: str
    unit: str  # of the x axis
    x: Axis
    y: Axis
    line: list[tuple[float, float]]
    band: list[tuple[float, float]]  # around it, as a closed line
    limit: float
    decided: float | None  # where on the x axis
    width: int = WIDTH
    height: int = HEIGHT


def course(check: Check) -> Course | None:
    """Return the chart of a check that rows decide; None where its bounds are known after no two of them."""
    steps, scale = check.steps, 1 if check.name.startswith(IN_NATS) else 100
    if len(steps) < 2 or check.rows is None or check.of is None or check.limit is None:
        return None
    late = [step for step in steps if 2 * step.rows >= check.rows]  # the earliest bounds may be far out
    inside = [scale * value for step in late for value in (step.low, step.high)] + [scale * check.limit]
    x = Axis(0, steps[-1].rows, LEFT, WIDTH - RIGHT)
    y = Axis(min(inside), max(inside), HEIGHT - BOTTOM, TOP)

    def place(rows: int, value: float) -> tuple[float, float]:
        return x(rows), y(min(max(scale * value, y.low), y.high))

    told = check.passed is not None
    by = f"{'decided' if told else 'not decided'} by {counted(check.rows, check.of)}"
    return Course(
        title=check.name,
        caption=f"{'nats a token' if scale == 1 else 'percent'}; {by}",
        unit=f"{check.of}s",
        x=x,
        y=y,
        line=[place(step.rows, step.figure) for step in steps],
        band=[place(s.rows, s.high) for s in steps] + [place(s.rows, s.low) for s in reversed(steps)],
        limit=y(scale * check.limit),
        decided=x(check.rows) if told else None,
    )


def histograms(lengths: Mapping[str, Sequence[int]], reach: int | None = None) -> dict[str, Any] | None:
    """Return how long texts are: one panel each on a common axis; None where there are none.

    Args:
        lengths: of each text, by whose it is.
        reach: where the axis ends, if not at the longest.
    """
    edges, counts = binned(lengths, reach)
    if not counts:
        return None
    x = Axis(0, edges[-1], RIGHT, WIDTH - RIGHT)
    panels = []
    for place, (name, shares) in enumerate(counts.items(), start=1):
        floor = place * PANEL
        y = Axis(0, max(shares), floor, floor - PANEL + 26)
        ends = zip(map(x, edges), map(x, edges[1:]), map(y, shares), strict=False)  # the last edge starts no bin
        caption = f"median {median(lengths[name]):,.0f}, longest {max(lengths[name]):,}"
        bars = [(left, top, right - left) for left, right, top in ends if top < floor]
        panels.append({"name": name, "caption": caption, "floor": floor, "bars": bars})
    return {"width": WIDTH, "height": len(panels) * PANEL + BOTTOM, "x": x, "panels": panels}


def binned(lengths: Mapping[str, Sequence[int]], reach: int | None = None) -> tuple[list[int], dict[str, list[float]]]:
    """Return the edges of bins of whole tokens, and for each that has lengths at all, the share of them in each bin."""
    nonempty = {name: values for name, values in lengths.items() if values}
    longest = max((max(values) for values in nonempty.values()), default=0)
    longest = longest if reach is None else min(reach, longest)
    width = math.ceil((longest + 1) / BINS)
    edges = list(range(0, longest + width + 1, width))
    shares = {}
    for name, values in nonempty.items():
        counts = [0] * (len(edges) - 1)
        for value in values:
            if value < edges[-1]:
                counts[value // width] += 1
        shares[name] = [count / len(values) for count in counts]
    return edges, shares


def _known(curve: Sequence[Point], key: str) -> list[tuple[float, float]]:
    return [(point.step, loss) for point in curve if (loss := getattr(point, key)) is not None]
