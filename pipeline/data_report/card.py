"""The card of the prepared data set: Markdown under the YAML head that the Hub reads."""

from dataclasses import asdict

import yaml

from common.words import counted, percent
from pipeline.core.data_settings import CleanSettings, DataSettings, each_source
from pipeline.core.records import PrepareReport
from pipeline.data.languages import UNKNOWN
from pipeline.data_report.record import DataReport
from pipeline.report.markdown import cell, section
from pipeline.report.tables import Cell, Table

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10**7, "1M<n<10M"))
SPOKEN = 0.05  # share of the rows from which a language is the set's


def card(settings: DataSettings, report: PrepareReport, figures: DataReport) -> str:
    """Return the card; the licence is the user's to add."""
    return "\n".join(
        [
            f"---\n{_head(settings, report, figures)}---\n",
            f"# {cell(report.data)}\n",
            f"{_origin(settings, report)}, prepared by Tunesmith as chats in three splits.\n",
            section(_splits(report)),
            section(_steps(figures)),
            f"## Cleaning\n\n{_cleaning(settings.clean, report)}\n",
            f"## Leaks\n\n{_leaks(settings, report)}\n",
            section(_files(report)),
            "## Licence\n\nThat of its sources; it is not recorded here.\n",
        ]
    )


def _head(settings: DataSettings, report: PrepareReport, figures: DataReport) -> str:
    rows = sum(split.rows for split in report.splits.values())
    files = [{"split": name, "path": f"{name}.parquet"} for name in report.splits]
    head = {
        "pretty_name": report.data,
        "language": languages(figures),
        "size_categories": [next((name for most, name in SIZES if rows < most), "10M<n<100M")],
        "task_categories": ["text-generation"],
        "tags": ["conversational", "tunesmith"],
        "source_datasets": sorted(hub_sets(settings, report)),
        "configs": [{"config_name": "default", "data_files": files}],
    }
    return yaml.safe_dump({key: value for key, value in head.items() if value}, sort_keys=False, allow_unicode=True)


def hub_sets(settings: DataSettings, report: PrepareReport) -> dict[str, str | None]:
    """Return the Hub's names of what was read, and the revision of each."""
    revisions = {name: source.revision for name, source in report.sources.items()}
    revisions |= report.replay.revisions if report.replay else {}
    return {
        source.path: revisions.get(name, report.revision)
        for name, source in each_source(settings).items()
        if source.source == "hub" and source.path
    }


def languages(figures: DataReport) -> list[str]:
    """Return the codes of the languages that a good part of train is in."""
    train = figures.splits["train"]
    told = {name: rows for name, rows in train.languages.items() if name != UNKNOWN}
    return [name for name, rows in told.items() if rows >= SPOKEN * sum(told.values())]


def _origin(settings: DataSettings, report: PrepareReport) -> str:
    rows = sum(file.rows for file in report.files)
    hub = [_linked(path, revision) for path, revision in hub_sets(settings, report).items()]
    made_from = f"{counted(rows, 'row')} of {counted(len(report.files), 'file')}"
    return f"{made_from}, among them {', '.join(hub)}" if hub else made_from


def _linked(path: str, revision: str | None) -> str:
    return f"[{path}](https://huggingface.co/datasets/{path})" + (f" at revision `{revision}`" if revision else "")


def _splits(report: PrepareReport) -> Table:
    rows: list[list[Cell]] = [
        [name, f"{split.rows:,}", ", ".join(report.own_splits.get(name, ())) or "drawn", split.sha256]
        for name, split in report.splits.items()
    ]
    return Table("Splits", ["split", "rows", "from", "sha256 of the rows"], rows)


def _steps(figures: DataReport) -> Table:
    rows: list[list[Cell]] = [
        [step.name, f"{step.rows:,}", ", ".join(f"{rows:,} {reason}" for reason, rows in step.reasons.items())]
        for step in figures.steps
    ]
    return Table("From raw to kept", ["", "rows", "left out"], rows)


def _cleaning(settings: CleanSettings, report: PrepareReport) -> str:
    lines = [
        f"- {cell(name)}: {counted(rule.rows, 'row')} found, {'left out' if rule.mode == 'drop' else 'kept'}"
        for name, rule in report.cleaning.items()
    ]
    bounds = {key: value for key, value in asdict(settings).items() if type(value) in (int, float, list) and value}
    lines += [f"- {cell(key)}: {cell(str(value))}" for key, value in bounds.items() if key != "mask"]
    lines += [f"- masked: {counted(places, 'place')} of {name}" for name, places in report.masked.items()]
    return "\n".join(lines) or "None."


def _leaks(settings: DataSettings, report: PrepareReport) -> str:
    how = (
        "have the same prompt to the letter"
        if settings.leak_threshold is None
        else "share a prompt, an exchange or most of a prompt "
        f"(word 3-grams, Jaccard {settings.leak_threshold:g} and above; held against every pair by an exact join)"
    )
    left = "".join(f" {counted(rows, 'row')} of train left out for {name}." for name, rows in report.leaks.items())
    asked = report.questions
    given = f" Of {counted(asked.given, 'question')} of the evaluation {asked.in_training:,} stood in train and went."
    questions = given if asked.given else ""
    return f"No two rows that {how} are in different splits.{left}{questions}"


def _files(report: PrepareReport) -> Table:
    total = sum(file.rows for file in report.files)
    rows: list[list[Cell]] = [
        [file.file, file.format, f"{file.rows:,} ({percent(file.rows, total)})", f"{file.usable:,}"]
        for file in report.files
    ]
    return Table("Sources", ["file", "format", "rows", "usable"], rows)
