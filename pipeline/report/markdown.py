"""The report as Markdown, for the terminal, a pull request, a diff."""

import re

from common.words import counted
from pipeline.report.record import Evaluation
from pipeline.report.tables import Cell, Table, tables
from pipeline.report.verdict import summed_up

# Replies are anybody's words: none of them may make a tag, an image, a link or another cell.
SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def markdown(evaluation: Evaluation) -> str:
    """Return the verdict, then every table."""
    base = evaluation.base
    counts = [counted(evaluation.rows, "conversation"), counted(evaluation.tokens, "scored token")]
    counts += [counted(evaluation.questions, "question")] if evaluation.questions else []
    revision = f" at {base.revision}" if base.revision else ""
    parts = [
        f"# Evaluation of {cell(evaluation.model)}\n",
        f"**Verdict: {cell(summed_up(evaluation.verdict))}**\n",
        f"Tuned from {cell(base.path + revision)}; {', '.join(counts)}; fingerprint {evaluation.fingerprint}.\n",
    ]
    for name, table in tables(evaluation).items():
        parts.append(section(table))
        if name == "models":
            parts.append("![base and tuned](evaluation.png)\n")
    return "\n".join(parts)


def cell(content: Cell) -> str:
    """Return a figure, or a text that says no more in Markdown than its characters; its line breaks stay."""
    text = SPECIAL.sub(r"\\\1", str(content)).replace("&", "&amp;").replace("<", "&lt;")
    return "<br>".join(text.splitlines())


def section(table: Table) -> str:
    """Return a table under its title."""
    rows: list[list[Cell]] = [[*table.head], *table.rows]
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(table.head))
    note = f"\n{table.note}\n" if table.note else ""
    return f"## {table.title}\n\n" + "\n".join(lines) + f"\n{note}"
