"""data/examples.json: rows that steps of prepare have left out or tied together, with their texts."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from pipeline.core.messages import Messages, said
from pipeline.core.records import Count, Record
from pipeline.data.cleaning import Cleaning
from pipeline.data.examples import Examples, Group, Kind, Step
from pipeline.data.rows import Conversation

BEGINNING = 5_000  # characters of a message that are kept
TURNS = 20  # of a conversation

Fetch = Callable[[Sequence[int]], Sequence[Conversation]]


class ExampleTurn(Record):
    """A message: who speaks, the beginning of what is said, and how many characters it has."""

    role: str
    text: str
    characters: Count


class ExampleRow(Record):
    """A conversation, and the source that it came from."""

    source: str
    turns: tuple[ExampleTurn, ...]


class ExamplePair(Record):
    """A row that was left out, and the one that it gave way to."""

    dropped: ExampleRow
    kept: ExampleRow


class ExampleGroup(Record):
    """Rows that hang together: how many, and some of them."""

    rows: Count
    members: tuple[ExampleRow, ...]


class ExampleGroups(Record):
    """How many groups there are by their rows, and the largest."""

    sizes: dict[int, Count]
    largest: tuple[ExampleGroup, ...]


class ExampleHit(Record):
    """What a rule has found: a text, from where to where, and what is said of it."""

    text: str
    start: Count
    end: Count
    said: str


class ExampleRule(Record):
    """A rule of cleaning that has found something."""

    name: str
    reason: str
    mode: str
    rows: Count
    hits: tuple[ExampleHit, ...]


class ExampleRows(Record):
    """All of them."""

    made_by: ClassVar[str] = "prepare"

    pairs: dict[Step, tuple[ExamplePair, ...]]
    groups: dict[Kind, ExampleGroups]
    rules: tuple[ExampleRule, ...]
    marks: dict[str, Count]  # rows by the mark of a template that they have


def example_row(source: str, messages: Messages) -> ExampleRow:
    """Return a conversation as an example."""
    texts = ((message["role"], said(message)) for message in messages[:TURNS])
    turns = (ExampleTurn(role=role, text=text[:BEGINNING], characters=len(text)) for role, text in texts)
    return ExampleRow(source=source, turns=tuple(turns))


def example_rows(examples: Examples, cleaning: Cleaning, fetch: Fetch) -> ExampleRows:
    """Return examples with their texts.

    Args:
        examples: row numbers.
        cleaning: what was found in rows.
        fetch: returns rows by their numbers.
    """

    def rows(numbers: Sequence[int]) -> list[ExampleRow]:
        return [example_row(row.source, row.messages) for row in fetch(numbers)]

    def groups(largest: Iterable[Group]) -> tuple[ExampleGroup, ...]:
        return tuple(ExampleGroup(rows=group.rows, members=tuple(rows(group.members))) for group in largest)

    def pairs(left: Iterable[Sequence[int]]) -> tuple[ExamplePair, ...]:
        return tuple(ExamplePair(dropped=dropped, kept=kept) for dropped, kept in map(rows, left))

    return ExampleRows(
        pairs={step: pairs(left) for step, left in examples.left.items()},
        groups={
            kind: ExampleGroups(sizes=dict(sorted(some.sizes.items())), largest=groups(some.largest))
            for kind, some in examples.groups.items()
        },
        rules=tuple(
            ExampleRule(
                name=rule.name,
                reason=rule.reason,
                mode=found.mode,
                rows=found.rows,
                hits=tuple(ExampleHit(**hit._asdict()) for hit in found.examples),
            )
            for rule, found in cleaning.rules
            if found.rows
        ),
        marks=dict(cleaning.marks.most_common()),
    )
