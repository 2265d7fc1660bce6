"""Conversations and the figures of their split as one self-contained page, with the look of the evaluation's."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.look.rows import Conversation, Reading
from pipeline.look.summary import Summary
from pipeline.look.words import control_line, cut_line, heading, summary_lines, turn_line
from pipeline.report.charts import histograms
from pipeline.report.page import templates


def page(summary: Summary, lengths: Sequence[int], conversations: Sequence[Conversation], reading: Reading) -> str:
    """Return the page; look.html.jinja arranges it.

    Args:
        summary: of the split.
        lengths: tokens of each conversation's longest row.
        conversations: to show.
        reading: how they are read.
    """
    return (
        templates(Path(__file__).parent)
        .get_template("look.html.jinja")
        .render(
            summary=summary,
            lines=summary_lines(summary),
            histograms=histograms({"conversations": list(lengths)}),
            conversations=conversations,
            reading=reading,
            control_line=control_line,
            cut_line=cut_line,
            heading=heading,
            turn_line=turn_line,
        )
    )
