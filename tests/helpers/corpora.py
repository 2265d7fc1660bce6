"""Conversations as the steps of prepare have them, their lines in a temporary file."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.core.formats import Messages
from pipeline.data.corpus import Corpus, columns_of, line_of
from pipeline.data.rows import Conversation
from pipeline.data.sources import Source


def corpus_of(*groups: Iterable[Messages], names: str = "") -> Corpus:
    """The conversations of some sources, one after another; `names` has a letter for each source."""
    file = Path(tempfile.mkdtemp(prefix="corpus-")) / "lines.jsonl"
    columns = []
    with file.open("wb") as written:
        for name, group in zip(names or [""] * len(groups), groups, strict=True):
            rows = [Conversation(messages, "a", None) for messages in group]
            lines = [line_of(row.messages) for row in rows]
            written.writelines(lines)
            columns.append(columns_of(Source("a", (), group=name), rows, lines, whole=True))
    return Corpus(columns, file)
