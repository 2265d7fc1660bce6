"""Conversations as the steps of prepare have them, their lines in a temporary file."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.core.formats import Messages
from pipeline.data.corpus import Corpus, columns_of, line_of
from pipeline.data.rows import Conversation
from pipeline.data.sources import Source


def corpus_of(conversations: Iterable[Messages]) -> Corpus:
    rows = [Conversation(messages, "a", None) for messages in conversations]
    lines = [line_of(row.messages) for row in rows]
    file = Path(tempfile.mkdtemp(prefix="corpus-")) / "1.jsonl"
    file.write_bytes(b"".join(lines))
    return Corpus([columns_of(Source("a", ()), rows, lines, whole=True)], file)
