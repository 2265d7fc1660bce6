"""Examples with their texts: what was left out, beside what it gave way to."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from common.words import readable
from pipeline.core.messages import Messages
from pipeline.data.cleaning_rules import REASONS
from pipeline.data.draw import place
from pipeline.data.example_rows import ExampleGroup, ExampleHit, ExampleRow, ExampleRows, example_row
from pipeline.data.examples import Step
from pipeline.data.rejects import kind
from pipeline.data_report.figures import poorest
from pipeline.report.differences import differences

SHOWN = 5  # of a kind
LONG = 700  # characters of a message
FINE = 0.7  # of quality
BEFORE = 200  # that stand before the first mark, where that comes late
GOOD = ("chosen", "good")
ROW = 500  # of a row that was rejected

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


class ShownAnswer(NamedTuple):
    """A conversation with an answer that is compared or judged, and what it is."""

    title: str
    row: ShownRow

    @property
    def is_good(self) -> bool:
        """Whether it is to become likelier."""
        return self.title in GOOD


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


def shown_pairs(examples: ExampleRows) -> dict[Step, list[ShownPair]]:
    """Return the pairs of each step, those first that differ in some word."""
    found: dict[Step, list[ShownPair]] = {}
    for step, pairs in examples.pairs.items():
        shown = [shown_pair(pair.dropped, pair.kept) for pair in pairs]
        found[step] = sorted(shown, key=lambda pair: not pair.differ)[:SHOWN]
    return {step: pairs for step, pairs in found.items() if pairs}


def shown_pair(dropped: ExampleRow, kept: ExampleRow) -> ShownPair:
    """Return two rows, each turn beside the same turn of the other."""
    return ShownPair(_beside(dropped, kept), _beside(kept, dropped))


def _beside(row: ExampleRow, other: ExampleRow) -> ShownRow:
    theirs = [*(turn.text for turn in other.turns), *[""] * len(row.turns)]
    turns = []
    for turn, their_text in zip(row.turns, theirs, strict=False):
        turns.append(ShownTurn(turn.role, windowed(differences(turn.text, their_text), turn.characters)))
    return ShownRow(row.source, turns)


def shown_row(row: ExampleRow) -> ShownRow:
    """Return a row with nothing marked."""
    turns = [ShownTurn(turn.role, windowed([(turn.text, False)], turn.characters)) for turn in row.turns]
    return ShownRow(row.source, turns)


def windowed(pieces: Pieces, characters: int) -> Pieces:
    """Return so much of a text as is shown: from its beginning, or from shortly before a first mark that comes late."""
    begin, at = _begin(pieces), 0
    shown: Pieces = [(f"{begin:,} characters \u2026 ", False)] if begin else []
    for part, marked in pieces:
        if kept := part[max(begin - at, 0) : max(begin + LONG - at, 0)]:
            shown.append((kept, marked))
        at += len(part)
    left = characters - begin - LONG
    return [*shown, (f" \u2026 {left:,} characters more", False)] if left > 0 else shown


def _begin(pieces: Pieces) -> int:
    before = sum(len(part) for part, _ in takewhile(lambda piece: not piece[1], pieces))
    is_late = before > LONG - BEFORE and any(marked for _, marked in pieces)
    return before - BEFORE if is_late else 0


def shown_answers(answers: Sequence[tuple[Messages, bool]]) -> list[ShownAnswer]:
    """Return the two answers of a pair, the chosen one first, with the words marked that the other has not; or one.

    Args:
        answers: conversations, each with whether its answer is the better one, or good.
    """
    (first, good), *second = answers
    one = example_row("", first)
    if not second:
        return [ShownAnswer("good" if good else "bad", shown_row(one))]
    rejected, chosen = shown_pair(example_row("", second[0][0]), one)
    return [ShownAnswer("chosen", chosen), ShownAnswer("rejected", rejected)]


def shown_groups(groups: Sequence[ExampleGroup]) -> list[ShownGroup]:
    """Return groups with some of their rows."""
    return [ShownGroup(group.rows, list(map(shown_row, group.members))) for group in groups]


def shown_rules(examples: ExampleRows) -> list[ShownRule]:
    """Return the rules that found something, with what they found."""
    return [
        ShownRule(rule.name, rule.reason, rule.mode, rule.rows, list(map(_hit, rule.hits))) for rule in examples.rules
    ]


def _hit(hit: ExampleHit) -> ShownHit:
    parts = [(hit.text[: hit.start], False), (hit.text[hit.start : hit.end], True), (hit.text[hit.end :], False)]
    return ShownHit([part for part in parts if part[0]], hit.said)


def shown_poorest(rows: Iterable[Messages]) -> list[ShownHit]:
    """Return the answers that look worst, below FINE."""
    scored = nsmallest(SHOWN, {poorest(messages) for messages in rows})
    return [ShownHit(windowed([(text, False)], len(text)), f"{score:.2f}") for score, text in scored if score < FINE]


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
            row = reject["row"]
            row = _cut(readable(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)))
            some = drawn.setdefault(reason, {})
            some.setdefault(place(row.encode(), seed), ShownReject(f"{reject['source']}:{reject['line']}", row))
            if len(some) > SHOWN:
                del some[max(some)]
    commonest = sorted(rows, key=lambda reason: (-rows[reason], reason))
    return {reason: [shown for _, shown in sorted(drawn[reason].items())] for reason in commonest}


def _cut(text: str) -> str:
    return f"{text[:ROW]} …" if len(text) > ROW else text
