"""Records as statements: of two answers one is better, or one answer is good or bad."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.core.messages import Messages
from pipeline.data.feedback import is_record
from pipeline.data.folding import fold
from pipeline.data.lines import BadLine, Row
from pipeline.data.masking import Masking
from pipeline.data.versions import SCHEMAS, Latest, Version
from pipeline.learning.forgotten import digest_of_visitor

UNREADABLE = "cannot be read, or is no record"
OTHER_SCHEMA = "of another schema"
NO_CONSENT = "without consent"
FORGOTTEN = "of a visitor who is forgotten"
NO_MODEL = "whose model is unknown"
NO_JUDGEMENT = "without a judgement, or taken back"
TIE = "a vote for neither"
SAME = "of two answers that are the same"
REPLACED = "replaced by a later version"

Made = Literal["vote", "edit", "thumb"]


@dataclass(frozen=True)
class Statement:
    """What a visitor says of answers, with personal data masked."""

    record: str
    time: str
    visitor: str
    conversation: str
    made: Made
    prompt: Messages
    answers: tuple[str, ...]  # the better and the worse one, or one
    label: bool | None = None  # of one: whether it is good
    models: tuple[str, ...] = ()  # who gave each; "a visitor" for an edited one

    @property
    def is_pair(self) -> bool:
        """Whether it is of two answers."""
        return self.label is None

    @property
    def question(self) -> str:
        """What it answers: of this prompt and these answers, whichever way round."""
        asked = [[turn["role"], fold(turn["content"])] for turn in self.prompt]
        return _digest([asked, self.is_pair, *sorted(map(fold, self.answers))])

    @property
    def side(self) -> str:
        """How it answers that."""
        return _digest(fold(self.answers[0])) if self.is_pair else str(self.label)

    @property
    def text(self) -> str:
        """All that it is about, as near-duplicates are told by: pairs by the better answer first."""
        return fold(" ".join([*(turn["content"] for turn in self.prompt), *self.answers, str(self.label)]))


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Model(_Part):
    name: str
    digest: str | None = None


class Answer(_Part):
    """What a model said."""

    text: str
    model: _Model


class _Consent(_Part):
    version: int
    purpose: str


class Visit(_Part):
    """Who says it, and where."""

    visitor: str
    conversation: str
    consent: _Consent | None = None


class _Turn(_Part):
    role: Literal["system", "user", "assistant"]
    content: str


class Said(_Part):
    """A record, as far as it is read here."""

    id: str
    time: str
    messages: list[_Turn]
    answer: Answer | None = None
    left: Answer | None = None
    right: Answer | None = None
    verdict: Literal["good", "bad"] | None = None
    vote: Literal["left", "right", "tie", "both_bad"] | None = None
    edited: str | None = None
    blind: bool = False
    visit: Visit | None = None


@dataclass
class Statements:
    """The statements of the records that stand, and why the others are left out."""

    found: list[Statement] = field(default_factory=list)
    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)  # of each reason, where

    def leave_out(self, why: str, place: str) -> None:
        """Count a record that is left out."""
        self.left_out[why] += 1
        self.first.setdefault(why, place)


def read(rows: Iterable[tuple[str, Row | BadLine]], masking: Masking, forgotten: frozenset[str]) -> Statements:
    """Return what records say; of those of one id the latest counts.

    Args:
        rows: with the names of their files.
        masking: of personal data.
        forgotten: digests of visitors whose records are none any more.
    """
    statements = Statements()
    for place, said in latest(rows, statements):
        if why := unusable(said, forgotten) or _says_nothing(said):
            statements.leave_out(why, place)
            continue
        statements.found += _statements(said, masking)
    statements.found.sort(key=lambda one: (one.time, one.record, one.answers))
    return statements


def latest(rows: Iterable[tuple[str, Row | BadLine]], statements: Statements) -> Iterator[tuple[str, Said]]:
    """Yield the records, of those of one id the latest, each with its place; the others are counted as left out."""
    versions = Latest[Said]()
    for name, row in rows:
        statements.records += 1
        if (said := _said(row, statements, _place(name, row.line))) is None:
            continue
        if replaced := versions.add(said.id, Version(said.time, name, row.line), said):
            statements.leave_out(REPLACED, _place(replaced.name, replaced.line))
    yield from ((_place(version.name, version.line), said) for version, said in versions)


def _place(name: str, line: int) -> str:
    return f"{name}:{line}"


def _said(row: Row | BadLine, statements: Statements, place: str) -> Said | None:
    if isinstance(row, BadLine) or not is_record(row.value):
        statements.leave_out(UNREADABLE, place)
        return None
    if isinstance(row.value, dict) and row.value["schema"] not in SCHEMAS:
        statements.leave_out(OTHER_SCHEMA, place)
        return None
    try:
        return Said.model_validate(row.value)
    except ValidationError:
        statements.leave_out(UNREADABLE, place)
        return None


def unusable(said: Said, forgotten: frozenset[str]) -> str | None:
    """Return why a record counts for nothing; None for one that says something, and of whom."""
    if said.visit is None or said.visit.consent is None:
        return NO_CONSENT
    if digest_of_visitor(said.visit.visitor) in forgotten:
        return FORGOTTEN
    if any(answer and answer.model.digest is None for answer in (said.answer, said.left, said.right)):
        return NO_MODEL
    if said.answer is None and (said.left is None or said.right is None):
        return UNREADABLE
    if not (said.verdict or said.vote or said.edited):
        return NO_JUDGEMENT
    return None


def _says_nothing(said: Said) -> str | None:
    """Return why nothing is learnt of a vote; None for what can be."""
    if said.vote == "tie":
        return TIE
    return SAME if said.vote in ("left", "right") and is_of_same(said) else None


def is_of_same(said: Said) -> bool:
    """Return whether a vote is of two answers that are the same."""
    return bool(said.left and said.right and fold(said.left.text) == fold(said.right.text))


def _statements(said: Said, masking: Masking) -> Iterator[Statement]:
    """Yield what a record that says something says: a good thumb for an edited answer is about the edited one."""
    if said.visit is None:
        return
    prompt = [{"role": turn.role, "content": masking.text(turn.content)} for turn in said.messages]
    common = (said.id, said.time, said.visit.visitor, said.visit.conversation)

    def statement(made: Made, texts: tuple[str, ...], label: bool | None, models: tuple[str, ...]) -> Statement:
        masked = tuple(map(masking.text, texts))
        return Statement(*common, made, prompt, masked, label, models)  # type: ignore[arg-type]

    if (left := said.left) and (right := said.right):
        if said.vote == "both_bad":
            yield from (statement("vote", (one.text,), False, (one.model.name,)) for one in (left, right))
        else:
            better, worse = (left, right) if said.vote == "left" else (right, left)
            yield statement("vote", (better.text, worse.text), None, (better.model.name, worse.model.name))
    elif answer := said.answer:
        if said.edited and fold(said.edited) != fold(answer.text):
            yield statement("edit", (said.edited, answer.text), None, ("a visitor", answer.model.name))
        elif said.verdict:
            yield statement("thumb", (answer.text,), said.verdict == "good", (answer.model.name,))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode(errors="replace")).hexdigest()
