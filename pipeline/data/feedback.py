"""Records that the server keeps of what visitors say of answers, as rows: judgements and pairs.

A record is a version of a judgement: of an id the latest counts, wherever it stands, and it may take the judgement
back. What one visitor finds good and another bad says nothing. So all records are looked through before one is taken.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipeline.core.formats import UnusableRowError
from pipeline.core.preferences import JUDGED_BAD
from pipeline.data.lines import BadLine, Row, SetAside
from pipeline.data.readers import suffixes
from pipeline.data.sources import Source
from pipeline.data.versions import SCHEMAS, Latest, Version

MARKS = frozenset(("schema", "kind", "id", "time", "messages", "sampling"))  # keys that all records have
# The others are counted as unused.
READ = {"schema", "kind", "id", "time", "messages", "answer", "left", "right", "verdict", "vote", "edited", "visit"}
LINES = (".jsonl", ".ndjson")  # what the server writes; to see how others begin, much of them is read
NO_VERDICT = "feedback without a verdict"
REPLACED = "feedback that a later record replaces"
CONTRADICTED = "feedback that another contradicts"
ASKED_FOR = frozenset((NO_VERDICT, REPLACED, CONTRADICTED))  # by the records themselves
UNKNOWN = "feedback of another version, or damaged"
AMONG_OTHERS = "feedback among other rows, where nobody knows which record is the latest"

Claim = tuple[str, ...]  # good or bad and an answer, or better and two of them


class Record(NamedTuple):
    """One judgement: of which conversation, what is claimed, and as a row that the formats know, if it is worth one."""

    id: str
    time: str
    claims: frozenset[Claim]
    row: dict[str, object] | None


def is_record(row: object) -> bool:
    """Return whether a row is a record of feedback."""
    return isinstance(row, dict) and "sampling" in row and row.keys() >= MARKS


def with_feedback_read(sources: list[Source]) -> list[Source]:
    """Return the sources; those that begin with a record of feedback give the records that stand, as rows."""
    kept = [_begins_with_record(source) for source in sources]
    if not any(kept):
        return sources
    standing = Standing(source for source, is_feedback in zip(sources, kept, strict=True) if is_feedback)
    return [
        replace(source, rows=FeedbackRows(source, standing)) if is_feedback else source
        for source, is_feedback in zip(sources, kept, strict=True)
    ]


def _begins_with_record(source: Source) -> bool:
    if source.revision is None and suffixes(source.name)[0] not in LINES:
        return False
    first = next(iter(source.rows), None)
    return isinstance(first, Row) and is_record(first.value)


class Standing:
    """The last record of each id, and all that these claim."""

    def __init__(self, sources: Iterable[Source]) -> None:
        latest = Latest[frozenset[Claim]]()
        for source in sources:
            for row in source.rows:
                if isinstance(row, Row) and is_record(row.value) and (record := _record_or_none(row.value)):
                    latest.add(record.id, Version(record.time, source.name, row.line), record.claims)
        self._places = {(version.name, version.line) for version, _ in latest}
        self._claimed = frozenset().union(*(claims for _, claims in latest))

    def row(self, value: dict[str, object], name: str, line: int) -> dict[str, object]:
        """Return what the record at a place is worth.

        Raises:
            UnusableRowError: nothing; with the reason.
        """
        record = read_record(value)
        if (name, line) not in self._places:
            raise UnusableRowError(REPLACED)
        if any(_opposite(claim) in self._claimed for claim in record.claims):
            raise UnusableRowError(CONTRADICTED)
        if record.row is None:
            raise UnusableRowError(JUDGED_BAD if record.claims else NO_VERDICT)
        return record.row


@dataclass(frozen=True)
class FeedbackRows:
    """The rows of a source that keeps feedback."""

    source: Source
    standing: Standing

    def __iter__(self) -> Iterator[Row | BadLine | SetAside]:
        for row in self.source.rows:
            if not isinstance(row, Row) or not is_record(row.value):
                yield row
                continue
            try:
                yield row._replace(value=self.standing.row(row.value, self.source.name, row.line))
            except UnusableRowError as error:
                yield SetAside(row.line, error.args[0], row.value)


def read_record(value: dict[str, object]) -> Record:
    """Return what a record says.

    Raises:
        UnusableRowError: it is another version's, or damaged.
    """
    if (record := _record_or_none(value)) is None:
        raise UnusableRowError(UNKNOWN)
    return record


def _record_or_none(value: dict[str, object]) -> Record | None:
    texts = {side: _text(value.get(side)) for side in ("answer", "left", "right")}
    if value["schema"] not in SCHEMAS or not isinstance(value["messages"], list) or not any(texts.values()):
        return None
    claims, answers = _judged(value, texts)
    asked = value["messages"]
    keyed = frozenset((word, *(_key(asked, text) for text in of)) for word, *of in claims)
    rest = {key: each for key, each in value.items() if key not in READ}
    return Record(str(value["id"]), str(value["time"]), keyed, rest | answers if answers else None)


def _judged(value: dict[str, object], texts: dict[str, str]) -> tuple[set[Claim], dict[str, object]]:
    """Return what is claimed of which texts, and the row that it makes. To lose a vote is not to be bad."""
    verdict, vote, asked = value.get("verdict"), value.get("vote"), value["messages"]
    answer, left, right = texts.values()
    if (edited := value.get("edited")) and isinstance(edited, str) and answer not in ("", edited):
        row = {"messages": asked, "chosen": edited, "rejected": answer}
        return {("better", edited, answer), ("good", edited)}, row
    if verdict in ("good", "bad"):
        return {(str(verdict), answer)}, {"prompt": asked, "completion": answer, "label": verdict == "good"}
    if vote == "both_bad":
        return {("bad", left), ("bad", right)}, {}
    if vote not in ("left", "right") or left == right:
        return set(), {}
    better, worse = (left, right) if vote == "left" else (right, left)
    row = {"messages": asked, "chosen": better, "rejected": worse}
    return {("better", better, worse), ("good", better)}, row


def _opposite(claim: Claim) -> Claim:
    word, *answers = claim
    return ({"good": "bad", "bad": "good"}.get(word, word), *reversed(answers))


def _text(answer: object) -> str:
    return str(answer.get("text") or "") if isinstance(answer, dict) else ""


def _key(asked: object, text: str) -> str:
    return hashlib.blake2b(json.dumps([asked, text], sort_keys=True).encode(), digest_size=16).hexdigest()
