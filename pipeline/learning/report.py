"""Who said what how often, what was left out and why: reports/feedback.json, and the same as a page.

Visitors stand there by numbers, in the order in which they came, with the beginning of their name in records.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.files import write_text
from common.words import counted
from pipeline.core.paths import FEEDBACK_PAGE, FEEDBACK_REPORT
from pipeline.core.records import Count, Record
from pipeline.learning.divide import Split
from pipeline.learning.manifest import LearnManifest
from pipeline.learning.standing import Standing
from pipeline.learning.statements import Statement
from pipeline.report.page import templates
from pipeline.report.tables import Table

SHORT = 8  # digits of a visitor's name
SHOWN_VISITORS, SHOWN_ROWS = 50, 10


class VisitorFigures(Record):
    """What one visitor said."""

    number: Count
    name: str  # its beginning
    said: dict[str, Count]
    kept: Count
    split: str | None


class FeedbackReport(Record):
    """reports/feedback.json."""

    schema_version: int = 1
    digest: str
    source: str
    records: Count
    left_out: dict[str, Count]
    masked: dict[str, Count]
    models: dict[str, dict[str, Count]]
    visitors: list[VisitorFigures]
    splits: dict[str, dict[str, Count]]


def report(
    manifest: LearnManifest,
    statements: Sequence[Statement],
    splits: Mapping[Split, Sequence[Standing]],
    records: int,
    masked: Mapping[str, int],
) -> FeedbackReport:
    """Return the figures.

    Args:
        manifest: of what was written.
        statements: of all records that say something.
        splits: the rows.
        records: how many there were.
        masked: how often personal data was masked, by its kind.
    """
    return FeedbackReport(
        schema_version=1,
        digest=manifest.digest,
        source=manifest.source,
        records=records,
        left_out=manifest.left_out,
        masked=dict(masked),
        models=_models(statements),
        visitors=_visitors(statements, splits),
        splits={name: counts.model_dump() for name, counts in manifest.splits.items()},
    )


def write(root: Path, figures: FeedbackReport, train: Sequence[Standing]) -> None:
    """Write the report and its page, with some rows of train."""
    figures.write(root / FEEDBACK_REPORT)
    template = templates(Path(__file__).parent).get_template("feedback.html.jinja")
    shown = [row.statement for row in train[:SHOWN_ROWS]]
    write_text(root / FEEDBACK_PAGE, template.render(figures=figures, tables=tables(figures), rows=shown))


def tables(figures: FeedbackReport) -> dict[str, Table]:
    """Return what the page and the terminal show."""
    left_out = [[why, f"{count:,}"] for why, count in sorted(figures.left_out.items(), key=lambda one: -one[1])]
    visitors = sorted(figures.visitors, key=lambda one: -sum(one.said.values()))[:SHOWN_VISITORS]
    said = ("good", "bad", "vote", "edit")
    made = {
        "splits": Table(
            "What is learnt, and what is held out",
            ["split", "pairs", "labels", "visitors", "conversations"],
            [[name, *(f"{count:,}" for count in counts.values())] for name, counts in figures.splits.items()],
            "test is never learnt: it is held out for judging. No visitor and no conversation is in two splits.",
        ),
        "left_out": Table("Left out", ["what", "records or statements"], [[*row] for row in left_out]),
        "models": Table(
            "What was said of which model",
            ["model", "good", "bad", "won", "lost", "edited"],
            [
                [name, *(f"{counts.get(key, 0):,}" for key in ("good", "bad", "won", "lost", "edited"))]
                for name, counts in figures.models.items()
            ],
        ),
        "visitors": Table(
            "Who said what how often",
            ["visitor", "name", *said, "rows kept", "split"],
            [
                [
                    str(one.number),
                    f"{one.name}…",
                    *(f"{one.said.get(key, 0):,}" for key in said),
                    f"{one.kept:,}",
                    one.split or "none",
                ]
                for one in visitors
            ],
            f"Of {counted(len(figures.visitors), 'visitor')} those who said most." if visitors else "",
        ),
    }
    return {name: table for name, table in made.items() if table.rows}


def _models(statements: Sequence[Statement]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for one in statements:
        if one.label is not None:
            found[one.models[0]]["good" if one.label else "bad"] += 1
        elif one.made == "edit":
            found[one.models[1]]["edited"] += 1
        else:
            found[one.models[0]]["won"] += 1
            found[one.models[1]]["lost"] += 1
    return {name: dict(counts) for name, counts in sorted(found.items())}


def _visitors(statements: Sequence[Statement], splits: Mapping[Split, Sequence[Standing]]) -> list[VisitorFigures]:
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for one in statements:
        word = one.made if one.label is None else "good" if one.label else "bad"
        said[one.visitor][word] += 1
    split_of = {row.statement.visitor: split for split, rows in splits.items() for row in rows}
    kept = Counter(row.statement.visitor for rows in splits.values() for row in rows)
    return [
        VisitorFigures(
            number=number, name=visitor[:SHORT], said=dict(counts), kept=kept[visitor], split=split_of.get(visitor)
        )
        for number, (visitor, counts) in enumerate(said.items(), 1)
    ]
