"""Quality against the seconds of an answer: a point for each GGUF file, the Pareto front as a line."""

from io import StringIO
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed, nor asked for
from matplotlib import pyplot as plt

COLOURS = ("#0f766e", "#d9622b", "#4f6bd6", "#a3308f", "#8a6d00", "#64748b")  # of runs, in turn
REPEATABLE: Any = {
    "svg.hashsalt": "compare",
    "svg.fonttype": "none",
}  # letters as text


def pareto(comparison: dict[str, Any]) -> str:
    """The plot as SVG; up and to the left is better. Files without a figure of the two are left out."""
    quality = comparison["rule"]["quality"]
    files = [file for file in comparison["files"] if None not in (file["answer_seconds"], file[quality])]
    with mpl.rc_context(REPEATABLE):
        figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
        if files:
            _draw(axis, files, comparison)
        if quality == "loss":
            axis.invert_yaxis()
        axis.set_xlabel("seconds an answer, on average")
        axis.set_ylabel("accuracy" if quality == "accuracy" else "loss, nats a token")
        axis.margins(0.12)
        axis.grid(alpha=0.25)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


def _draw(axis: Any, files: list[dict[str, Any]], comparison: dict[str, Any]) -> None:
    """Files by run, the front, the budget and the one that is recommended."""
    quality, budget = comparison["rule"]["quality"], comparison["rule"]["max_answer_seconds"]
    for index, run in enumerate(dict.fromkeys(file["run"] for file in files)):
        _points(axis, [file for file in files if file["run"] == run], quality, COLOURS[index % len(COLOURS)], run)
    _front(axis, files, quality)
    if budget is not None:
        axis.axvline(budget, color="#b91c1c", linestyle="--", linewidth=1, label=f"at most {budget:g} s")
    for file in files:
        if f"{file['run']} {file['type']}" == comparison["recommended"]:
            place = (file["answer_seconds"], file[quality])
            axis.scatter(*place, s=190, facecolors="none", edgecolors="#111827", label="recommended")
    axis.legend(frameon=False, fontsize=8)


def _points(axis: Any, files: list[dict[str, Any]], quality: str, colour: str, label: str) -> None:
    places = [(file["answer_seconds"], file[quality]) for file in files]
    axis.scatter(*zip(*places, strict=True), color=colour, label=label)
    for index, (file, place) in enumerate(zip(files, places, strict=True)):
        beside = (5, -11) if index % 2 else (5, 5)  # types of one model are often close to one another
        axis.annotate(file["type"], place, beside, textcoords="offset points", fontsize=8, color=colour)


def _front(axis: Any, files: list[dict[str, Any]], quality: str) -> None:
    """The best quality that so many seconds buy; more than the slowest file takes buys no more."""
    places = sorted((file["answer_seconds"], file[quality]) for file in files if file["front"])
    places.append((max(file["answer_seconds"] for file in files), places[-1][1]))
    axis.step(*zip(*places, strict=True), where="post", color="#94a3b8", zorder=0, label="Pareto front")
