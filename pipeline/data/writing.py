"""data/prepared, written at once: splits in Parquet, questions and preferences in JSONL, and what all is made from."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.files import atomic_path, write_json
from pipeline.core.paths import COMPARED, PREFERENCES, QUESTIONS
from pipeline.core.preferences import conversations
from pipeline.data.corpus import Corpus
from pipeline.data.message_schema import completed, schema_of
from pipeline.data.near_duplicates import Integers
from pipeline.data.prepared import MADE_FROM, MadeFrom
from pipeline.data.questions import Question
from pipeline.data.report import ComparedFigures, Lengths, SplitDigest, SplitFigures

ROW_GROUP = 10_000  # rows; keeps a column chunk far below the 2 GiB that 32-bit string offsets reach
SOURCE = pa.field("source", pa.string())  # where data.sources names some


def write(
    folder: Path,
    corpus: Corpus,
    splits: dict[str, Integers],
    questions: list[Question],
    origin: MadeFrom,
) -> tuple[dict[str, SplitFigures], dict[str, ComparedFigures], dict[str, dict[str, int]]]:
    """Write splits, questions, preferences if any, and what they were made from: `folder` changes all at once.

    A split that has comparisons and no conversation has their good answers as conversations.

    Returns:
        Rows and digest of each split, the same of the comparisons, and the lengths of messages by role.
    """
    lengths, figures, compared = Lengths(), {}, {}
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for name, rows in splits.items():
            learnt, comparisons = conversations_of(corpus, rows), rows[corpus.compared[rows]]
            figures[name] = write_split(temporary / f"{name}.parquet", corpus, learnt, lengths)
            if corpus.compared.any():
                path = temporary / COMPARED / f"{name}.parquet"
                compared[name] = write_comparisons(path, corpus, comparisons, int(corpus.compared[learnt].sum()))
        lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in questions]
        (temporary / QUESTIONS.name).write_text("".join(lines), encoding="utf-8")
        if corpus.has_preferences:
            with (temporary / PREFERENCES.name).open("wb") as file:
                file.writelines(corpus.preferences())
        write_json(temporary / MADE_FROM, origin)
    return figures, compared, lengths.report()


def conversations_of(corpus: Corpus, rows: Integers) -> Integers:
    """Return the conversations among rows, or else the comparisons that have a good answer."""
    plain = rows[~corpus.compared[rows]]
    good = [row for row in rows.tolist() if corpus.kinds[row] in ("pair", "good")]
    return plain if len(plain) else np.array(good, np.int64)


def write_comparisons(file: Path, corpus: Corpus, rows: Integers, as_conversations: int) -> ComparedFigures:
    """Write the comparisons of a split, a conversation for each answer; return how many there are of each kind."""
    schema = schema_of(corpus.compared_fields)
    for field in (pa.field("comparison", pa.int64()), pa.field("good", pa.bool_())):
        schema = schema.append(field)
    digest = SplitDigest()
    file.parent.mkdir(exist_ok=True)
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            comparisons = list(corpus.comparisons(rows[start : start + ROW_GROUP].tolist()))
            answers = [
                {"messages": completed(messages, corpus.compared_fields), "comparison": number, "good": good}
                for number, comparison in enumerate(comparisons, start)
                for messages, good in conversations(comparison)
            ]
            digest.add(answers)
            writer.write_table(pa.Table.from_pylist(answers, schema=schema))
    kinds = Counter(corpus.kinds[row] for row in rows.tolist())
    return {
        "rows": len(rows),
        "sha256": digest.report()["sha256"],
        "pairs": kinds["pair"],
        "good": kinds["good"],
        "bad": kinds["bad"],
        "as_conversations": as_conversations,
    }


def write_split(file: Path, corpus: Corpus, rows: Integers, lengths: Lengths) -> SplitFigures:
    """Write a split, a group of rows at a time, and count its messages; return its rows and digest."""
    fields = corpus.compared_fields if corpus.compared[rows].any() or not corpus.fields else corpus.fields
    schema = schema_of(fields)
    schema = schema.append(SOURCE) if corpus.grouped else schema
    digest = SplitDigest()
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, len(rows), ROW_GROUP):
            numbers = rows[start : start + ROW_GROUP].tolist()
            group = [completed(messages, fields) for messages in corpus.answered(numbers)]
            digest.add(group)
            lengths.add(group)
            columns: dict[str, Sequence[object]] = {"messages": group}
            columns |= {"source": [corpus.groups[row] for row in numbers]} if corpus.grouped else {}
            writer.write_table(pa.table(columns, schema=schema))
    return digest.report()
