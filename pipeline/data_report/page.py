"""The data as one self-contained page, with the look of the evaluation's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.words import percent
from pipeline.core.records import PrepareReport
from pipeline.data.example_rows import ExampleRows
from pipeline.data.examples import Kind
from pipeline.data.examples import Step as Left
from pipeline.data_report.figures import Counts
from pipeline.data_report.funnel import READ
from pipeline.data_report.record import DataReport, Step
from pipeline.data_report.shown import ShownAnswer, ShownGroup, ShownHit, ShownPair, ShownReject, ShownRow, ShownRule
from pipeline.data_report.tables import tables
from pipeline.look.quantiles import quantile
from pipeline.report.charts import histograms
from pipeline.report.page import templates

if TYPE_CHECKING:
    from pipeline.look.rows import Conversation

REACH = 0.99  # share of the lengths that a histogram has on its axis
DRAWN = 50_000  # lengths in one
TITLES: dict[Left, tuple[str, str]] = {
    "duplicates": ("Duplicates", "the same as the row that was kept, but for case, punctuation and spacing"),
    "near_duplicates": ("Near-duplicates", "nearly the same as the row that was kept"),
    "leaks": ("Leaks", "rows of train that are linked to a split of the set's own, and were left out"),
}
KINDS: dict[Kind, str] = {
    "near_duplicates": "Near-duplicates, of which one is kept",
    "components": "Rows on the same side of the split, since they share a prompt, most of one, or an exchange",
}


class Bar(NamedTuple):
    """A row of the funnel."""

    step: Step
    share: str  # of the rows that were read
    width: float  # in percent
    is_split: bool


@dataclass(frozen=True)
class Shown:
    """What the page shows beside the figures."""

    kept: Sequence[ShownRow]
    compared: Sequence[list[ShownAnswer]]
    pairs: Mapping[Left, list[ShownPair]]
    groups: Mapping[Kind, list[ShownGroup]]
    rules: Sequence[ShownRule]
    poorest: Sequence[ShownHit]  # answers of train, where none are left out for their quality
    rejects: Mapping[str, list[ShownReject]]
    words: Mapping[str, Counts]  # of each message of train, by role
    read: Sequence["Conversation"]  # the rows kept, as the model reads them
    tokens: Sequence[int]  # of conversations
    no_tokens: str  # why there are none


def page(figures: DataReport, report: PrepareReport, examples: ExampleRows, shown: Shown) -> str:
    """Return the page; data.html.jinja arranges it."""
    drawn = {role: words[:DRAWN].tolist() for role, words in sorted(shown.words.items())}
    return (
        templates(Path(__file__).parent)
        .get_template("data.html.jinja")
        .render(
            figures=figures,
            report=report,
            shown=shown,
            tables=tables(figures, report, examples),
            words=histograms(drawn, _reach(drawn)),
            tokens=histograms({"conversations": list(shown.tokens)}, _reach({"": shown.tokens})),
            bars=_bars(figures),
            titles=TITLES,
            kinds=KINDS,
            percent=percent,
        )
    )


def _reach(lengths: Mapping[str, Sequence[int]]) -> int | None:
    """Return the length that nearly all have at most, of whichever has the longest."""
    return max((quantile(sorted(values), REACH) for values in lengths.values() if len(values)), default=None)


def _bars(figures: DataReport) -> list[Bar]:
    """Return the funnel's rows: the steps that take something out, and the splits."""
    steps = [step for step in figures.steps if step.name == READ or step.left_out or step.added]
    splits = [Step(name=name, rows=split.rows, left_out=0, reasons={}) for name, split in figures.splits.items()]
    read, most = figures.steps[0].rows, max(step.rows for step in steps)
    return [
        Bar(step, percent(step.rows, read), round(100 * step.rows / most, 2), is_split)
        for is_split, part in ((False, steps), (True, splits))
        for step in part
    ]
