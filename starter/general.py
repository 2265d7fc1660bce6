"""Writes texts of the starter's world that are no chats: what its base must not forget, and what keeps it from that.

    python -m starter.general

They are as the base models have read them (statements.py), of numbers beyond those of the pretraining. statements.jsonl
and transcripts.jsonl are measured by evaluate; replay.jsonl, others again, is learnt beside the chats where
`data=starter-replay` asks for it.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from starter.statements import texts

HERE = Path(__file__).parent / "general"
FIRST_CHUNK = 10_000  # the pretraining has read those below 1,500
REPLAY_CHUNK = 20_000
PAGES, TRANSCRIPTS = 120, 120
REPLAYED_PAGES, REPLAYED_TRANSCRIPTS = 750, 750

TURN = re.compile(r"<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>", re.DOTALL)
MARKS = re.compile(r"<\|(?:begin_of_text|end_of_text)\|>")

Row = dict[str, object]


def write(folder: Path = HERE) -> None:
    """Write all three files into `folder`."""
    folder.mkdir(exist_ok=True)
    _write_lines(folder / "statements.jsonl", islice(pages(FIRST_CHUNK), PAGES))
    _write_lines(folder / "transcripts.jsonl", islice(transcripts(FIRST_CHUNK), TRANSCRIPTS))
    replayed = [*islice(pages(REPLAY_CHUNK), REPLAYED_PAGES), *islice(transcripts(REPLAY_CHUNK), REPLAYED_TRANSCRIPTS)]
    _write_lines(folder / "replay.jsonl", replayed)


def pages(chunk: int) -> Iterator[Row]:
    """Yield the texts of statements from a chunk on, as rows of plain text."""
    return ({"text": MARKS.sub("", text)} for text in _texts(chunk) if not TURN.search(text))


def transcripts(chunk: int) -> Iterator[Row]:
    """Yield the transcripts from a chunk on, as rows of messages."""
    turns = (TURN.findall(text) for text in _texts(chunk))
    return ({"messages": [{"role": role, "content": said} for role, said in found]} for found in turns if found)


def _texts(chunk: int) -> Iterator[str]:
    while True:
        yield from texts(chunk)
        chunk += 1


def _write_lines(path: Path, rows: Iterator[Row] | list[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write()
