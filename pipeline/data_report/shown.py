"""Examples with their texts: what was left out, beside what it gave way to."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from common.words import readable
from pipeline.core.messages import said
from pipeline.data.cleaning import Cleaning
from pipeline.data.cleaning_rules import REASONS, Hit
from pipeline.data.examples import Examples, Group, Step
from pipeline.data.rejects import kind
from pipeline.data.rows import Conversation
from pipeline.report.differences import differences

SHOWN = 5  # of a kind
LONG = 700  # characters of a message
COMPARED = 5_000  # of it
BEFORE = 200  # that stand before the first mark, where that comes late
ROW = 500  # of a row that was rejected

Fetch = Callable[[Sequence[int]], Sequence[Conversation]]
Pieces = list[tuple[str, bool]]  # of a text, each with whether it is marked


class ShownTurn(NamedTuple):
    """A message as it is shown."""

    role: str
    pieces: Pieces


class ShownRow(NamedTuple):
    """A conversation as it is shown."""

    source: str
    turns: list[ShownTurn]


class ShownPair(NamedTuple):
    """A row that was left out, and the one that it gave way to; the words that the other has not are marked."""

    dropped: ShownRow
    kept: ShownRow

    @property
    def differ(self) -> bool:
        """Whether any word of theirs does."""
        return any(marked for row in self for turn in row.turns for _, marked in turn.pieces)


class ShownGroup(NamedTuple):
    """Rows that hang together: how many, and some."""

    rows: int
    members: list[ShownRow]


class ShownHit(NamedTuple):
    """What a rule found, as it is shown."""

    pieces: Pieces
    said: str


class ShownRule(NamedTuple):
    """A rule, how many rows it found and whether they went."""

    name: str
    reason: str
    mode: str
    rows: int
    hits: list[ShownHit]


class ShownReject(NamedTuple):
    """A row that was not taken."""

    place: str
    row: str


def shown_pairs(examples: Examples, fetch: Fetch) -> dict[Step, list[ShownPair]]:
    """Return the pairs of each step, those first that differ in some word."""
    found: dict[Step, list[ShownPair]] = {}
    for step, pairs in examples.left.items():
        rows = fetch([number for pair in pairs for number in pair])
        shown = [shown_pair(*rows[at : at + 2]) for at in range(0, len(rows), 2)]
        found[step] = sorted(shown, key=lambda pair: not pair.differ)[:SHOWN]
    return {step: pairs for step, pairs in found.items() if pairs}


def shown_pair(dropped: Conversation, kept: Conversation) -> ShownPair:
    """Return two rows, each turn beside the same turn of the other."""
    return ShownPair(_beside(dropped, kept), _beside(kept, dropped))


def _beside(row: Conversation, other: Conversation) -> ShownRow:
    theirs = [*map(said, other.messages), *[""] * len(row.messages)]
    turns = []
    for message, their_text in zip(row.messages, theirs, strict=False):
        text = said(message)
        pieces = differences(text[:COMPARED], their_text[:COMPARED])
        turns.append(ShownTurn(message["role"], windowed(pieces, text)))
    return ShownRow(row.source, turns)


def shown_row(row: Conversation) -> ShownRow:
    """Return a row with nothing marked."""
    turns = ((message["role"], said(message)) for message in row.messages)
    return ShownRow(row.source, [ShownTurn(role, windowed([(text[:COMPARED], False)], text)) for role, text in turns])


def windowed(pieces: Pieces, text: str) -> Pieces:
    """Return so much of a text as is shown: from its beginning, or from shortly before a first mark that comes late."""
    begin, at = _begin(pieces), 0
    shown: Pieces = [(f"{begin:,} characters \u2026 ", False)] if begin else []
    for part, marked in pieces:
        if kept := part[max(begin - at, 0) : max(begin + LONG - at, 0)]:
            shown.append((kept, marked))
        at += len(part)
    left = len(text) - begin - LONG
    return [*shown, (f" \u2026 {left:,} characters more", False)] if left > 0 else shown


def _begin(pieces: Pieces) -> int:
    before = sum(len(part) for part, _ in takewhile(lambda piece: not piece[1], pieces))
    is_late = before > LONG - BEFORE and any(marked for _, marked in pieces)
    return before - BEFORE if is_late else 0


def shown_groups(groups: Sequence[Group], fetch: Fetch) -> list[ShownGroup]:
    """Return groups with some of their rows."""
    return [ShownGroup(group.rows, [shown_row(row) for row in fetch(group.members)]) for group in groups]


def shown_rules(cleaning: Cleaning) -> list[ShownRule]:
    """Return the rules that found something, with what they found."""
    return [
        ShownRule(rule.name, rule.reason, found.mode, found.rows, [_hit(hit) for hit in found.examples])
        for rule, found in cleaning.rules
        if found.rows
    ]


def _hit(hit: Hit) -> ShownHit:
    parts = [(hit.text[: hit.start], False), (hit.text[hit.start : hit.end], True), (hit.text[hit.end :], False)]
    return ShownHit([part for part in parts if part[0]], hit.said)


def shown_rejects(path: Path, seed: int) -> dict[str, list[ShownReject]]:
    """Return some of the rows that could not be used, by reason, the commonest first; cleaning's are elsewhere."""
    drawn: dict[str, dict[bytes, ShownReject]] = {}
    rows: Counter[str] = Counter()
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            reject = json.loads(line)
            reason = kind(reject["reason"])
            if reason in REASONS:
                continue
            rows[reason] += 1
            row = _cut(readable(json.dumps(reject["row"], ensure_ascii=False)))
            place = hashlib.blake2b(row.encode(), key=str(seed).encode(), digest_size=8).digest()
            some = drawn.setdefault(reason, {})
            some.setdefault(place, ShownReject(f"{reject['source']}:{reject['line']}", row))
            if len(some) > SHOWN:
                del some[max(some)]
    commonest = sorted(rows, key=lambda reason: (-rows[reason], reason))
    return {reason: [shown for _, shown in sorted(drawn[reason].items())] for reason in commonest}


def _cut(text: str) -> str:
    return f"{text[:ROW]} …" if len(text) > ROW else text
