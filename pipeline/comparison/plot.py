"""Quality against the seconds of an answer: a point for each GGUF file, the Pareto front as a line.

A dotted line joins two that their rows do not tell apart, however far from one another they stand.
"""

from io import StringIO

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # not pyplot, which looks for a screen

from pipeline.comparison.record import ComparedFile, Comparison, name_of
from pipeline.comparison.rule import RANKED_BY
from pipeline.report.metrics import metric
from pipeline.report.picture import NO_FORMULAS

COLOURS = ("#0f766e", "#d9622b", "#4f6bd6", "#a3308f", "#8a6d00", "#64748b")  # of runs, in turn
REPEATABLE = {"svg.hashsalt": "compare", "svg.fonttype": "none"}  # letters as text
Place = tuple[float, float]  # seconds of an answer, quality


def pareto(comparison: Comparison) -> str:
    """Return the plot as SVG; up and to the left is better. Files without a figure of the two are left out."""
    quality = metric(RANKED_BY[comparison["rule"]["quality"]])
    places = [(file, place) for file in comparison["files"] if (place := _place(file, quality.name))]
    with rc_context(REPEATABLE | NO_FORMULAS):  # type: ignore[arg-type]  # which lists every name that there is
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axis = figure.subplots()
        if places:
            _draw(axis, places, comparison)
        if quality.better == "lower":
            axis.invert_yaxis()
        axis.set_xlabel("seconds an answer, on average")
        axis.set_ylabel(quality.head)
        axis.margins(0.12)
        axis.grid(alpha=0.25)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _place(file: ComparedFile, quality: str) -> Place | None:
    seconds, worth = file["figures"]["answer_seconds"], file["figures"][quality]
    return (seconds, worth) if isinstance(seconds, int | float) and isinstance(worth, int | float) else None


def _draw(axis: Axes, files: list[tuple[ComparedFile, Place]], comparison: Comparison) -> None:
    """Draw files by run, the front, what cannot be told apart, the budget and the one that is recommended."""
    budget = comparison["rule"]["max_answer_seconds"]
    for index, run in enumerate(dict.fromkeys(file["run"] for file, _ in files)):
        _points(axis, [one for one in files if one[0]["run"] == run], COLOURS[index % len(COLOURS)], run)
    _front(axis, files)
    _alike(axis, {name_of(file): (place, file["alike"]) for file, place in files})
    if budget is not None:
        axis.axvline(budget, color="#b91c1c", linestyle="--", linewidth=1, label=f"at most {budget:g} s")
    for file, place in files:
        if name_of(file) == comparison["recommended"]:
            axis.scatter(*place, s=190, facecolors="none", edgecolors="#111827", label="recommended")
    axis.legend(frameon=False, fontsize=8)


def _points(axis: Axes, files: list[tuple[ComparedFile, Place]], colour: str, label: str) -> None:
    axis.scatter(*zip(*(place for _, place in files), strict=True), color=colour, label=label)
    for index, (file, place) in enumerate(files):
        beside = (5, -11) if index % 2 else (5, 5)  # types of one model are often close to one another
        axis.annotate(file["type"], place, beside, textcoords="offset points", fontsize=8, color=colour)


def _front(axis: Axes, files: list[tuple[ComparedFile, Place]]) -> None:
    """Draw the best quality that so many seconds buy; more than the slowest file takes buys no more."""
    places = sorted(place for file, place in files if file["front"])
    places.append((max(seconds for _, (seconds, _) in files), places[-1][1]))
    axis.step(*zip(*places, strict=True), where="post", color="#94a3b8", zorder=0, label="Pareto front")


def _alike(axis: Axes, files: dict[str, tuple[Place, list[str]]]) -> None:
    """Join files that cannot be told apart, of which each is given with the names of such others."""
    pairs = {tuple(sorted((name, other))) for name, (_, others) in files.items() for other in others if other in files}
    label: str | None = "cannot be told apart"
    for one, other in sorted(pairs):
        ends = files[one][0], files[other][0]
        axis.plot(*zip(*ends, strict=True), color="#475569", linestyle=":", linewidth=1.8, zorder=1, label=label)
        label = None  # once in the legend
