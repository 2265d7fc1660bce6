"""Instruction data, from a repository's files or the hub, as de-duplicated chats in three splits.

Reads what `data` names, writes data/prepared/{train,validation,test}.parquet, data/prepared/questions.jsonl, what they
were made from, which later stages compare with their own configuration, data/rejected.jsonl, which has every row that
cannot be used, and reports/prepare.json. The same input gives the same bytes.
"""

from pipeline.core.paths import PREFERENCES, PREPARE_REPORT, PREPARED, QUESTIONS, REJECTED
from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()


import json
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.files import atomic_path, write_json
from pipeline.core.config import Config
from pipeline.core.data_settings import DataSettings, validate
from pipeline.core.formats import Messages
from pipeline.core.records import PrepareReport
from pipeline.data.cleaning import Cleaning
from pipeline.data.dedup import drop_repeated
from pipeline.data.divide import divide
from pipeline.data.message_schema import fields_of, schema_of
from pipeline.data.own_splits import OWN, is_learnt, is_questions, require_sizes, told_apart, with_all_files
from pipeline.data.prepared import MADE_FROM, MadeFrom, made_from
from pipeline.data.questions import Question, drop_asked, load_questions
from pipeline.data.rejects import Rejects
from pipeline.data.report import length_histogram, print_table, question_report, split_report
from pipeline.data.rows import Conversation, SourceCounts, check_meaning, check_usable, read
from pipeline.data.sources import Source, find_files, load, why_ignored
from pipeline.stages.run import stage

ROW_GROUP = 10_000  # rows; keeps a column chunk far below the 2 GiB that 32-bit string offsets reach


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
    cleaning = Cleaning(settings.clean)
    rows, counts = read_all(sources, settings, cleaning, out)
    complete_weights([row.messages for row in rows])
    parts = by_split(rows, settings)
    distinct = drop_repeated(parts, settings)
    divided = divide(distinct.splits, settings)
    splits = {name: list(members.values()) for name, members in divided.splits.items()}
    kept = drop_asked(questions, splits["train"], settings.leak_threshold)
    report = {
        "data": settings.name,
        "revision": sources[0].revision,
        "files": [count.report() for count in counts if count.rows],
        "not_read": not_read(settings, root, counts, sources[len(counts) :]),
        "own_splits": {name: sorted({row.source for row in parts[name]}) for name in divided.leaks},
        **cleaning.report(),
        **distinct.report(),
        **divided.report(),
        "seed": settings.seed,
        "splits": {name: split_report(members) for name, members in splits.items()},
        "questions": question_report(questions, kept),
        "characters": length_histogram(chain.from_iterable(splits.values())),
    }
    preferences = sorted({line for count in counts for line in count.preferences})
    write(out / PREPARED, splits, kept, origin, preferences)
    PrepareReport.model_validate(report).write(out / PREPARE_REPORT)
    print_table(report, time.monotonic() - started)
    print(f"written: {', '.join(str(out / place) for place in (PREPARED, REJECTED, PREPARE_REPORT))}")
    return report


def read_all(
    sources: list[Source], settings: DataSettings, cleaning: Cleaning, out: Path
) -> tuple[list[Conversation], list[SourceCounts]]:
    """Return the conversations and what became of each source; write all rejects to data/rejected.jsonl.

    Raises:
        UserError: there are more rejects than the settings allow, or no row is left; they are written all the same.
    """
    with atomic_path(out / REJECTED) as temporary, temporary.open("w", encoding="utf-8") as file:
        rejects = Rejects(file)
        # Splits that are brought are read whole; `max_rows` is of the others.
        brought = [source for source in sources if not is_learnt(source)]
        rows, counts = read(brought, replace(settings, max_rows=None), rejects, cleaning)
        others, more = read([source for source in sources if is_learnt(source)], settings, rejects, cleaning)
    check_usable(counts + more, settings, rejects)
    check_meaning(counts + more, settings)
    return rows + others, counts + more


def by_split(rows: list[Conversation], settings: DataSettings) -> dict[str, list[Conversation]]:
    """Return the rows of each split that is brought, and all others under train.

    Raises:
        UserError: a split has the size 0 and is not brought.
    """
    brought = {name: some for name in OWN if (some := [row for row in rows if row.split == name])}
    require_sizes(settings, set(brought))
    return {**brought, "train": [row for row in rows if row.split not in OWN]}


def not_read(settings: DataSettings, root: Path, counts: list[SourceCounts], unreached: list[Source]) -> dict[str, str]:
    """Return the matching files that no row was taken from, and why."""
    readable, ignored = find_files(with_all_files(settings), root) if settings.source == "files" else ([], [])
    reasons = {name: why_ignored(name) for name in ignored}
    reasons |= {name: "it is data.questions" for name in readable if is_questions(name, settings, root)}
    reasons |= {count.file: "empty" for count in counts if not count.rows}
    return reasons | {source.name: f"data.max_rows {settings.max_rows} reached" for source in unreached}


def complete_weights(conversations: list[Messages]) -> None:
    """Give every message a weight where one has it, so that all have the same fields."""
    if any("weight" in message for messages in conversations for message in messages):
        for message in chain.from_iterable(conversations):
            message.setdefault("weight", 1)


def write(
    folder: Path,
    splits: dict[str, list[Messages]],
    questions: list[Question],
    origin: MadeFrom,
    preferences: list[str],
) -> None:
    """Write splits, questions, preferences if any, and what they were made from: `folder` changes all at once."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        schema = schema_of(fields_of(chain.from_iterable(splits.values())))
        for name, conversations in splits.items():
            with pq.ParquetWriter(temporary / f"{name}.parquet", schema) as writer:
                for start in range(0, len(conversations), ROW_GROUP):
                    group = conversations[start : start + ROW_GROUP]
                    writer.write_table(pa.table({"messages": group}, schema=schema))
        lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in questions]
        (temporary / QUESTIONS.name).write_text("".join(lines), encoding="utf-8")
        if preferences:
            text = "".join(f"{line}\n" for line in preferences)
            (temporary / PREFERENCES.name).write_text(text, encoding="utf-8")
        write_json(temporary / MADE_FROM, origin)


main = stage(run)

if __name__ == "__main__":
    main()
