"""Instruction data, from a repository's files or the hub, as de-duplicated chats in three splits.

Reads what `data` names, writes data/prepared/{train,validation,test}.parquet, data/prepared/questions.jsonl, what they
were made from, which later stages compare with their own configuration, and reports/prepare.json. The same input gives
the same bytes.
"""

from pipeline.core.paths import PREPARE_REPORT, PREPARED, QUESTIONS
from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()


import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import UserError
from common.files import atomic_path, write_json
from pipeline.core.config import Config
from pipeline.core.data_settings import DataSettings, validate
from pipeline.core.formats import Messages, UnusableRowError, convert, describe, detect, keys_of
from pipeline.core.progress import shown
from pipeline.core.records import PrepareReport
from pipeline.data.dedup import drop_duplicates, drop_near_duplicates, duplicate_keys, repeats
from pipeline.data.divide import divide
from pipeline.data.own_splits import OWN, is_learnt, is_questions, require_sizes, told_apart, with_all_files
from pipeline.data.prepared import MADE_FROM, MadeFrom, made_from
from pipeline.data.questions import Question, drop_asked, load_questions
from pipeline.data.report import length_histogram, print_table, question_report, split_report
from pipeline.data.sources import Source, find_files, load
from pipeline.stages.run import stage

SAMPLE = 100  # rows that the format is told from
ROW_GROUP = 10_000  # rows; keeps a column chunk far below the 2 GiB that 32-bit string offsets reach
MESSAGE = [("role", pa.string()), ("content", pa.string())]
SCHEMA = pa.schema([("messages", pa.list_(pa.struct(MESSAGE)))])
# The same where some message is shown and not learnt, which has the weight 0.
WEIGHED = pa.schema([("messages", pa.list_(pa.struct([*MESSAGE, ("weight", pa.int8())])))])
Reports = list[dict[str, Any]]  # a source each


def run(config: Config, out: Path) -> None:
    """Prepare what `data` names, from the working folder."""
    prepare(config.data, Path(), out)


def prepare(settings: DataSettings, root: Path, out: Path) -> dict[str, Any]:
    """Read the data below `root`, write data/prepared and reports/prepare.json below `out`, return the report.

    Raises:
        UserError: a setting, a file, the hub or the disk; data/prepared is then as it was before.
    """
    started = time.monotonic()
    validate(settings)
    # Before the long part: a mistake there shows at once.
    questions = load_questions(root, settings.questions, settings.answer_after)
    origin = made_from(settings, root)
    sources = told_apart(load(with_all_files(settings), root), settings, root)
    conversations, files = read_splits(sources, settings)
    complete_weights([messages for part in conversations.values() for messages in part])
    keys = {name: duplicate_keys(part, settings.duplicates) for name, part in conversations.items()}
    distinct = {name: drop_duplicates(part, keys[name]) for name, part in conversations.items()}
    far = distinct | {"train": drop_near_duplicates(distinct["train"], settings.near_duplicates)}
    divided = divide(far, settings)
    splits = {name: list(rows.values()) for name, rows in divided.splits.items()}
    kept = drop_asked(questions, splits["train"], settings.leak_threshold)
    report = {
        "data": settings.name,
        "revision": sources[0].revision,
        "files": files,
        "not_read": not_read(settings, root, sources[len(files) :]),
        "duplicates": sum(len(part) - len(distinct[name]) for name, part in conversations.items()),
        "near_duplicates": len(distinct["train"]) - len(far["train"]),
        "duplicates_by_source": repeats(
            (f"{name} {key}" for name in keys for key in keys[name]),
            (file["file"] for file in files for _ in range(file["usable"])),
        ),
        "own_splits": {name: [source.name for source in sources if source.split == name] for name in divided.leaks},
        "common_exchanges": divided.common_exchanges,
        "largest_component": divided.largest_component,
        "leaks": divided.leaks,
        "shared_by_own_splits": divided.shared,
        "seed": settings.seed,
        "splits": {name: split_report(members) for name, members in splits.items()},
        "questions": question_report(questions, kept),
        "characters": length_histogram(chain.from_iterable(splits.values())),
    }
    write(out / PREPARED, splits, kept, origin)
    PrepareReport.model_validate(report).write(out / PREPARE_REPORT)
    print_table(report, time.monotonic() - started)
    return report


def read_splits(sources: list[Source], settings: DataSettings) -> tuple[dict[str, list[Messages]], Reports]:
    """Return the usable conversations by split, and a report for each source read.

    Splits that are brought are read whole, and come first; the others' `max_rows` rows are under train.

    Raises:
        UserError: a split has the size 0 and is not brought.
    """
    brought = {name: [source for source in sources if source.split == name] for name in OWN}
    require_sizes(settings, {name for name in OWN if brought[name]})
    conversations: dict[str, list[Messages]] = {}
    files: Reports = []
    for name in filter(brought.get, OWN):
        conversations[name], reports = read(brought[name], replace(settings, max_rows=None))
        files += reports
    conversations["train"], reports = read([source for source in sources if is_learnt(source)], settings)
    return conversations, files + reports


def read(sources: list[Source], settings: DataSettings) -> tuple[list[Messages], Reports]:
    """Return the usable conversations of the first `max_rows` rows, and a report for each source read."""
    conversations: list[Messages] = []
    files: Reports = []
    left = settings.max_rows
    for source in sources:
        if left == 0:
            break
        usable, report = read_source(source, settings.format, left)
        conversations += usable
        files.append(report)
        left = None if left is None else left - report["rows"]
    return conversations, files


def read_source(source: Source, wanted_format: str, max_rows: int | None) -> tuple[list[Messages], dict[str, Any]]:
    """Return the usable conversations of the first `max_rows` rows of a source, and its counts.

    Raises:
        UserError: no row can be used.
    """
    rows = islice(source.rows, max_rows)
    sample = list(islice(rows, SAMPLE))
    name = detect(sample) if wanted_format == "auto" else wanted_format
    if name is None:
        raise _none_usable(source, sample, "no known format")
    usable: list[Messages] = []
    dropped: Counter[str] = Counter()
    for row in _with_progress(chain(sample, rows), source, max_rows):
        try:
            usable.append(convert(row, name))
        except UnusableRowError as error:
            dropped[error.args[0]] += 1
    counts = dict(sorted(dropped.items()))
    if not usable:
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise _none_usable(source, sample, f"read as {name}: {reasons}")
    total = len(usable) + dropped.total()
    return usable, {"file": source.name, "format": name, "rows": total, "usable": len(usable), "dropped": counts}


def not_read(settings: DataSettings, root: Path, unreached: list[Source]) -> dict[str, str]:
    """Return the matching files that no row was taken from, and why."""
    readable, ignored = find_files(with_all_files(settings), root) if settings.source == "files" else ([], [])
    reasons = dict.fromkeys(ignored, "unknown suffix")
    reasons |= {name: "it is data.questions" for name in readable if is_questions(name, settings, root)}
    return reasons | {source.name: f"data.max_rows {settings.max_rows} reached" for source in unreached}


def complete_weights(conversations: list[Messages]) -> None:
    """Give every message a weight where one has it, so that all have the same fields."""
    if any("weight" in message for messages in conversations for message in messages):
        for message in chain.from_iterable(conversations):
            message.setdefault("weight", 1)


def write(folder: Path, splits: dict[str, list[Messages]], questions: list[Question], origin: MadeFrom) -> None:
    """Write splits, questions and what they were made from into `folder`, which changes all at once."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, conversations in splits.items():
            schema = WEIGHED if "weight" in conversations[0][0] else SCHEMA
            with pq.ParquetWriter(temporary / f"{name}.parquet", schema) as writer:
                for start in range(0, len(conversations), ROW_GROUP):
                    group = conversations[start : start + ROW_GROUP]
                    writer.write_table(pa.table({"messages": group}, schema=schema))
        lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in questions]
        (temporary / QUESTIONS.name).write_text("".join(lines), encoding="utf-8")
        write_json(temporary / MADE_FROM, origin)


def _with_progress(rows: Iterable[Any], source: Source, max_rows: int | None) -> Iterable[Any]:
    total = source.total if source.total is None or max_rows is None else min(source.total, max_rows)
    return shown(rows, f"reading {source.name}", total)


def _none_usable(source: Source, sample: list[Any], reason: str) -> UserError:
    keys = ", ".join(keys_of(sample)) or "none, since its rows are no objects"
    return UserError(f"{source.name} has no usable row ({reason}); keys found: {keys}; formats known: {describe()}")


main = stage(run)

if __name__ == "__main__":
    main()
