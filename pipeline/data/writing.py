"""data/prepared, written at once: splits in Parquet, questions and preferences in JSONL, and what all is made from."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.files import atomic_path, write_json
from pipeline.core.paths import PREFERENCES, QUESTIONS
from pipeline.data.corpus import Corpus
from pipeline.data.message_schema import completed, schema_of
from pipeline.data.near_duplicates import Integers
from pipeline.data.prepared import MADE_FROM, MadeFrom
from pipeline.data.questions import Question
from pipeline.data.report import Lengths, SplitDigest, SplitFigures

ROW_GROUP = 10_000  # rows; keeps a column chunk far below the 2 GiB that 32-bit string offsets reach
SOURCE = pa.field("source", pa.string())  # where data.sources names some


def write(
    folder: Path,
    corpus: Corpus,
    splits: dict[str, Integers],
    questions: list[Question],
    origin: MadeFrom,
) -> tuple[dict[str, SplitFigures], dict[str, dict[str, int]]]:
    """Write splits, questions, preferences if any, and what they were made from: `folder` changes all at once.

    Returns:
        Rows and digest of each split, and the lengths of messages by role.
    """
    lengths, figures = Lengths(), {}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, rows in splits.items():
            figures[name] = write_split(temporary / f"{name}.parquet", corpus, rows, lengths)
        lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in questions]
        (temporary / QUESTIONS.name).write_text("".join(lines), encoding="utf-8")
        if corpus.has_preferences:
            with (temporary / PREFERENCES.name).open("wb") as file:
                file.writelines(corpus.preferences())
        write_json(temporary / MADE_FROM, origin)
    return figures, lengths.report()


def write_split(file: Path, corpus: Corpus, rows: Integers, lengths: Lengths) -> SplitFigures:
    """Write a split, a group of rows at a time, and count its messages; return its rows and digest."""
    schema = schema_of(corpus.fields)
    schema = schema.append(SOURCE) if corpus.grouped else schema
    digest = SplitDigest()
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            numbers = rows[start : start + ROW_GROUP].tolist()
            group = [completed(messages, corpus.fields) for messages in corpus.messages(numbers)]
            digest.add(group)
            lengths.add(group)
            columns: dict[str, Sequence[object]] = {"messages": group}
            columns |= {"source": [corpus.groups[row] for row in numbers]} if corpus.grouped else {}
            writer.write_table(pa.table(columns, schema=schema))
    return digest.report()
