"""reports/data.html, reports/data.json and reports/dataset_card.md, which prepare ends with."""

from collections.abc import Sequence
from pathlib import Path

from common.files import write_text
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.core.paths import DATA_CARD, DATA_PAGE, DATA_REPORT, PREPARED, REJECTED
from pipeline.core.records import PrepareReport
from pipeline.data.balance import prompt_of
from pipeline.data.cleaning import Cleaning
from pipeline.data.examples import Examples, Groups
from pipeline.data.rows import Conversation
from pipeline.data.topics import find_topics
from pipeline.data_report.card import card
from pipeline.data_report.figures import DRAWN, Counts, first_rows, split_figures
from pipeline.data_report.funnel import funnel
from pipeline.data_report.page import Shown, page
from pipeline.data_report.record import DataReport, GroupFigures, SplitFigures
from pipeline.data_report.shown import Fetch, shown_groups, shown_pairs, shown_rejects, shown_row, shown_rules
from pipeline.data_report.tokens import Model, Read, read_tokens

KEPT = 4  # rows that are shown
LONGEST = 6_000  # characters of one
NO_MODEL = "no model was named"
SIZES = ((1, "1"), (2, "2"), (5, "3 to 5"), (10, "6 to 10"), (100, "11 to 100"))  # the largest of each, and its name


def write_report(
    settings: DataSettings,
    report: PrepareReport,
    cleaning: Cleaning,
    examples: Examples,
    fetch: Fetch,
    out: Path,
    model: Model | None = None,
) -> DataReport:
    """Write what prepare tells people below `out`, where data/prepared and data/rejected.jsonl stand already.

    Args:
        settings: of `data`.
        report: what reports/prepare.json holds.
        cleaning: what was found in the rows.
        examples: what the steps have left out and tied together.
        fetch: returns rows by their numbers.
        out: the folder that the stage writes to.
        model: whose tokens are counted, where its tokenizer is on this machine; None for no tokens.

    Returns:
        The figures of reports/data.json.
    """
    first, splits, words = read_splits(out / PREPARED, report)
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
    groups = {kind: shown_groups(groups.largest, fetch) for kind, groups in examples.groups.items()}
    shown = Shown(
        kept=[shown_row(Conversation(first[number - 1], f"row {number}", None)) for number in kept],
        pairs=shown_pairs(examples, fetch),
        groups={kind: some for kind, some in groups.items() if some},
        rules=shown_rules(cleaning),
        rejects=shown_rejects(out / REJECTED, settings.seed),
        words=words,
        read=tokens.conversations if tokens else [],
        tokens=tokens.lengths if tokens else [],
        no_tokens=read if isinstance(read, str) else "",
    )
    texts = {DATA_PAGE: page(figures, report, cleaning, shown), DATA_CARD: card(settings, report, figures)}
    figures.write(out / DATA_REPORT)
    for path, text in texts.items():
        write_text(out / path, text)
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


def numbers_of_short(rows: Sequence[Messages]) -> list[int]:
    """Return the numbers, from 1, of the first rows that are short enough to be shown whole; else of the first."""
    sizes = (sum(len(message["content"]) for message in messages) for messages in rows)
    return [number for number, size in enumerate(sizes, 1) if size <= LONGEST][:KEPT] or [1]


def group_figures(groups: Groups) -> GroupFigures:
    """Return how many groups there are by their rows."""
    sizes: dict[str, int] = {}
    for size, count in sorted(groups.sizes.items()):
        name = next((name for most, name in SIZES if size <= most), f"more than {SIZES[-1][0]}")
        sizes[name] = sizes.get(name, 0) + count
    return GroupFigures(sizes=sizes, largest=max(groups.sizes, default=0))
