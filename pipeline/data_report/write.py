"""reports/data.html, reports/data.json and reports/dataset_card.md, of what prepare has written."""

from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.files import write_text
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.core.paths import (
    COMPARED,
    DATA_CARD,
    DATA_PAGE,
    DATA_REPORT,
    EXAMPLES,
    PREPARE_REPORT,
    PREPARED,
    REJECTED,
)
from pipeline.core.records import PrepareReport
from pipeline.data.balance import prompt_of
from pipeline.data.example_rows import ExampleGroups, ExampleRows, example_row
from pipeline.data.topics import find_topics
from pipeline.data_report.card import card
from pipeline.data_report.figures import DRAWN, Counts, first_rows, split_figures
from pipeline.data_report.funnel import funnel
from pipeline.data_report.page import Shown, page
from pipeline.data_report.record import DataReport, GroupFigures, SplitFigures
from pipeline.data_report.shown import (
    shown_answers,
    shown_groups,
    shown_pairs,
    shown_poorest,
    shown_rejects,
    shown_row,
    shown_rules,
)
from pipeline.data_report.tokens import Model, Read, read_tokens

KEPT = 4  # rows that are shown
LONGEST = 6_000  # characters of one
NO_MODEL = "no model was named"
SIZES = ((1, "1"), (2, "2"), (5, "3 to 5"), (10, "6 to 10"), (100, "11 to 100"))  # the largest of each, and its name


def write_report(settings: DataSettings, folder: Path, model: Model | None = None) -> DataReport:
    """Write what there is to know of the data, of and into a folder that prepare has written to.

    Args:
        settings: of `data`.
        folder: that has data/prepared, data/examples.json, data/rejected.jsonl and reports/prepare.json.
        model: whose tokens are counted, where its tokenizer is on this machine; None for no tokens.

    Returns:
        The figures of reports/data.json.

    Raises:
        UserError: a file is missing or damaged.
    """
    report, examples = PrepareReport.read(folder / PREPARE_REPORT), ExampleRows.read(folder / EXAMPLES)
    first, splits, words = read_splits(folder / PREPARED, report)
    kept = numbers_of_short(first)
    read = read_tokens(model, first, kept) if model else NO_MODEL
    tokens = read if isinstance(read, Read) else None
    figures = DataReport(
        data=report.data,
        steps=funnel(report),
        splits=splits,
        tokens=tokens.figures if tokens else None,
        groups={kind: group_figures(groups) for kind, groups in examples.groups.items()},
    )
    groups = {kind: shown_groups(groups.largest) for kind, groups in examples.groups.items()}
    shown = Shown(
        compared=list(map(shown_answers, first_comparisons(folder / PREPARED / COMPARED / "train.parquet"))),
        kept=[shown_row(example_row(f"row {number}", first[number - 1])) for number in kept],
        pairs=shown_pairs(examples),
        groups={kind: some for kind, some in groups.items() if some},
        rules=shown_rules(examples),
        poorest=shown_poorest(first) if settings.clean.min_quality is None else [],
        rejects=shown_rejects(folder / REJECTED, settings.seed),
        words=words,
        read=tokens.conversations if tokens else [],
        tokens=tokens.lengths if tokens else [],
        no_tokens=read if isinstance(read, str) else "",
    )
    texts = {DATA_PAGE: page(figures, report, examples, shown), DATA_CARD: card(settings, report, figures)}
    figures.write(folder / DATA_REPORT)
    for path, text in texts.items():
        write_text(folder / path, text)
    return figures


def read_splits(
    folder: Path, report: PrepareReport
) -> tuple[list[Messages], dict[str, SplitFigures], dict[str, Counts]]:
    """Return the first rows of train, the figures of all splits, and the words of each message of train by role."""
    paths = {name: folder / f"{name}.parquet" for name in report.splits}
    first = {name: first_rows(path, DRAWN) for name, path in paths.items()}
    topics = find_topics(list(map(prompt_of, first["train"])), report.seed)
    read = {name: split_figures(path, first[name], topics) for name, path in paths.items()}
    return first["train"], {name: figures for name, (figures, _) in read.items()}, read["train"][1]


def first_comparisons(path: Path) -> list[list[tuple[Messages, bool]]]:
    """Return the answers of the first comparisons of a split, each with whether it is good; none without the file."""
    if not path.is_file():
        return []
    rows = next(pq.ParquetFile(path).iter_batches(2 * KEPT), pa.table({})).to_pylist()
    found = groupby(rows, lambda row: row["comparison"])
    return [[(row["messages"], row["good"]) for row in answers] for _, answers in islice(found, KEPT)]


def numbers_of_short(rows: Sequence[Messages]) -> list[int]:
    """Return the numbers, from 1, of the first rows that are short enough to be shown whole; else of the first."""
    sizes = (sum(len(message["content"]) for message in messages) for messages in rows)
    return [number for number, size in enumerate(sizes, 1) if size <= LONGEST][:KEPT] or [1]


def group_figures(groups: ExampleGroups) -> GroupFigures:
    """Return how many groups there are by their rows."""
    sizes: dict[str, int] = {}
    for size, count in sorted(groups.sizes.items()):
        name = next((name for most, name in SIZES if size <= most), f"more than {SIZES[-1][0]}")
        sizes[name] = sizes.get(name, 0) + count
    return GroupFigures(sizes=sizes, largest=max(groups.sizes, default=0))
