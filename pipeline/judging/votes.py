"""What visitors of the chat voted, without seeing which model had said what (serve/feedback/records.py)."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.words import counted
from pipeline.data.versions import SCHEMAS, Latest, Version
from pipeline.judging.pairs import Outcome, Pair

logger = logging.getLogger(__name__)

VOTES: dict[str, Outcome] = {"left": "one", "right": "other", "tie": "tie", "both_bad": "tie"}
SUFFIXES = (".jsonl", ".ndjson")


class Vote(NamedTuple):
    """Two answers that a visitor was shown side by side, and which of them won."""

    pair: Pair
    won: Outcome


def read_votes(place: Path, most: int | None) -> list[Vote]:
    """Return the blind votes of a file, or of all files of a folder, the latest first, at most so many.

    Of the records of one id the latest counts, as elsewhere; it may take the vote back.

    Raises:
        UserError: there is no such file, one cannot be read, or there is no blind vote.
    """
    files = sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES) if place.is_dir() else [place]
    latest = Latest[Vote | None]()
    counts = dict.fromkeys(("records", "unreadable"), 0)
    for name, line, record in _records(files):
        counts["records"] += 1
        try:
            key, time, vote = _read(record)
        except (LookupError, TypeError, ValueError):
            counts["unreadable"] += 1
            continue
        latest.add(key, Version(time, name, line), vote)
    found = [vote for _, vote in sorted(latest, key=lambda one: one[0], reverse=True) if vote]
    if not found:
        raise UserError(f"evaluate.judge.votes is {place}, which has no blind vote; name the chat's feedback, or null")
    others = counts["records"] - counts["unreadable"] - len(found)
    logger.info(
        f"{place}: {counted(len(found), 'blind vote')}; not used are {counted(others, 'other record')} and "
        f"{counted(counts['unreadable'], 'damaged one')}"
    )
    return found[:most]


def _records(files: list[Path]) -> Iterator[tuple[str, int, str]]:
    """Yield each line with the name of its file and its number."""
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UserError(f"evaluate.judge.votes: cannot read {file}: {error.strerror}") from error
        yield from ((str(file), number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _read(line: str) -> tuple[str, str, Vote | None]:
    """Return id, time and vote of a record; None of one that is no blind vote.

    Raises:
        LookupError, TypeError, ValueError: it is damaged, or of another version.
    """
    match json.loads(line):
        case {"schema": schema, "id": str() as key, "time": str() as time} as record if schema in SCHEMAS:
            return key, time, _vote(record)
    raise ValueError(line)


def _vote(record: dict[str, object]) -> Vote | None:
    match record:
        case {
            "kind": "comparison",
            "blind": True,
            "vote": str() as vote,
            "messages": list() as messages,
            "left": {"text": str() as left},
            "right": {"text": str() as right},
        }:
            asked = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in messages]
            return Vote(Pair(asked, left, right), VOTES[vote])
    return None


def kappa(pairs: list[tuple[Outcome, Outcome]]) -> float | None:
    """Return by how much two agree beyond what they would by chance (Cohen 1960).

    1 is always, 0 as chance has it; None where chance would have them agree always.
    """
    count = len(pairs)
    agreed = sum(one == other for one, other in pairs) / count
    said, voted = (Counter(side) for side in zip(*pairs, strict=True))
    by_chance = sum(said[outcome] * voted[outcome] for outcome in said) / count**2
    return None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)
