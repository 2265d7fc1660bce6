"""The comparison for machines and for people: JSON, Markdown, a self-contained page, a plot, and the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from common.files import write_json, write_text
from pipeline.comparison.plot import pareto
from pipeline.comparison.record import Comparison
from pipeline.comparison.rule import RANKED_BY
from pipeline.comparison.tables import tables
from pipeline.report.markdown import cell, section
from pipeline.report.metrics import metric
from pipeline.report.page import templates
from pipeline.report.tables import Cell

BY = {
    "preference": "held-out pairs of answers, in all else no worse,",
    "accuracy": "accuracy, tasks and loss",
    "loss": "loss",
}


def write(folder: Path, comparison: Comparison) -> None:
    """Write compare.json, compare.md, compare.html and compare.svg into `folder`, each at once.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    plot = pareto(comparison)
    write_json(folder / "compare.json", comparison)
    write_text(folder / "compare.svg", plot)
    write_text(folder / "compare.md", markdown(comparison))
    write_text(folder / "compare.html", page(comparison, plot))


def markdown(comparison: Comparison) -> str:
    """Return the recommendation, what to know of it, then plot and tables."""
    notes = "".join(f"- {cell(note)}\n" for note in comparison["notes"])
    parts = [
        f"# {cell(title(comparison))}\n",
        f"**{headline(comparison)}:** {cell(comparison['reason'])}\n",
        f"{rule(comparison)}\n",
        *([notes] if notes else []),
        "![quality against seconds of an answer](compare.svg)\n",
        *(section(table) for table in tables(comparison)),
    ]
    return "\n".join(parts)


def page(comparison: Comparison, plot: str) -> str:
    """Return the page; compare.html.jinja arranges it, with the look of the evaluation's."""
    template = templates(Path(__file__).parent).get_template("compare.html.jinja")
    return template.render(
        title=title(comparison),
        headline=headline(comparison),
        rule=rule(comparison),
        comparison=comparison,
        plot=plot[plot.index("<svg") :],  # without the head of a file
        tables=tables(comparison),
    )


def show(console: Console, comparison: Comparison) -> None:
    """Print runs, files with what fits a terminal of their figures, and the recommendation."""
    runs, files = tables(comparison)[:2]
    quality = RANKED_BY[comparison["rule"]["quality"]]
    fitting = [metric(name).head for name in ("bytes", "memory_bytes", quality, "flips", "answer_seconds")]
    shown = {"file", *fitting, "rule"}
    columns = [place for place, head in enumerate(files.head) if head in shown]
    _print(console, runs.title, [runs.head, *runs.rows])
    rows: list[list[Cell]] = [list(files.head), *files.rows]
    _print(console, files.title, [[row[column] for column in columns] for row in rows])
    for line in (f"{headline(comparison)}: {comparison['reason']}", rule(comparison), *comparison["notes"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print(console: Console, title: str, rows: Sequence[Sequence[Cell]]) -> None:
    shown = Shown(*(escape(str(part)) for part in rows[0]), title=title)
    for row in rows[1:]:
        shown.add_row(*(escape(str(part)) for part in row))
    console.print(shown)


def title(comparison: Comparison) -> str:
    """Return what is compared."""
    return "Comparison of " + ", ".join(run["name"] for run in comparison["runs"])


def headline(comparison: Comparison) -> str:
    """Return the recommendation in a word or two."""
    return "Recommended" if comparison["recommended"] else "Nothing to recommend"


def rule(comparison: Comparison) -> str:
    """Return the rule in words."""
    budgets = comparison["rule"]
    quality = BY[budgets["quality"]]
    seconds, size, memory = (budgets[key] for key in ("max_answer_seconds", "max_gguf_mb", "max_memory_mb"))
    limits = [f"{seconds:g} s an answer"] if seconds is not None else []
    limits += [f"{size:,g} MB"] if size is not None else []
    limits += [f"{memory:,g} MB of memory"] if memory is not None else []
    files = f"files within {' and '.join(limits)}" if limits else "all files"
    return (
        f"The rule: of {files}, the fastest that no other is better than beyond doubt, by {quality} on the same rows."
    )
