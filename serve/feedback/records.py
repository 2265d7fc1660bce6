"""What a record of feedback holds, and what may stand in one."""

import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from llama.errors import RequestError
from llama.types import Message

SCHEMA = 2  # raised when a reader of the old records would misread the new ones
READABLE = (1, 2)  # those of schema 1 are of unknown visitors, who were not asked
COMMENT_CHARS, EDITED_CHARS = 2000, 20_000

Verdict = Literal["good", "bad"]
Vote = Literal["left", "right", "tie", "both_bad"]


class Reason(NamedTuple):
    """What can be ticked: the key is kept, the label is shown, with the verdict that it goes with (None: either)."""

    key: str
    label: str
    verdict: Verdict | None


REASONS = (
    Reason("accurate", "Accurate", "good"),
    Reason("followed", "Followed the instruction", "good"),
    Reason("well_written", "Well written", "good"),
    Reason("wrong_facts", "Wrong facts", "bad"),
    Reason("ignored", "Ignored the instruction", "bad"),
    Reason("unsafe", "Unsafe or unfair", "bad"),
    Reason("too_long", "Too long", "bad"),
    Reason("too_short", "Too short", "bad"),
    Reason("too_slow", "Too slow", "bad"),
    Reason("other", "Other", None),
)


def new_id() -> str:
    """Return an id for a record; records of one id are versions of one judgement."""
    return uuid.uuid4().hex


def now() -> str:
    """Return the time in UTC; as text it sorts as time does."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class ModelVersion:
    """Which model answered."""

    name: str
    revision: str | None = None
    quantization: str | None = None
    file: str | None = None  # its name, of several the first one's
    digest: str | None = None  # SHA-256 of the file, of several one after another

    @property
    def label(self) -> str:
        """One text for tables."""
        return " ".join(part for part in (self.name, self.revision and self.revision[:8], self.quantization) if part)


@dataclass(frozen=True)
class Timings:
    """How long an answer took, in seconds."""

    first_token: float
    total: float
    tokens: int
    tokens_per_second: float


@dataclass(frozen=True)
class Answer:
    """An answer as its reader saw it."""

    text: str
    model: ModelVersion
    timings: Timings | None = None
    thought: str = ""  # that the text begins with, marks included


@dataclass(frozen=True)
class Consent:
    """What the page said before it kept a judgement, and the visitor agreed to."""

    version: int
    kept: str
    purpose: str


# Whoever changes a word raises the version: visitors are then asked again.
CONSENT = Consent(
    version=1,
    kept="your thumbs, votes, comments and edited answers, with the conversation up to the answer, the model and its "
    "settings, and a random number that stands for this browser: no name, no address",
    purpose="to make the next model better and to measure whether it is; what you said may be learnt by it",
)


@dataclass(frozen=True)
class Visit:
    """Who judges, as far as that is known: a browser, by a digest of the id that it alone has."""

    visitor: str
    conversation: str
    consent: Consent


def visitor_of(browser_id: str) -> str:
    """Return a visitor's name in records. Nobody who reads them can act as the visitor, which takes the id itself."""
    return hashlib.sha256(browser_id.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """What is thought of one answer; without a verdict it takes an earlier one back, or is a mere comment."""

    kind: ClassVar[str] = "answer"
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)
    messages: Sequence[Message]  # up to and with the question
    sampling: Mapping[str, Any]  # not a Sampling: a later version's has other fields, and other defaults
    answer: Answer
    verdict: Verdict | None = None
    edited: str | None = None  # the answer as the visitor would have it, with the model's thought before it
    reasons: tuple[str, ...] = ()  # keys of REASONS
    comment: str = ""
    visit: Visit | None = None


@dataclass(frozen=True, kw_only=True)
class ComparisonRecord:
    """Which of two answers to one question is better."""

    kind: ClassVar[str] = "comparison"
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)
    messages: Sequence[Message]
    sampling: Mapping[str, Any]
    left: Answer
    right: Answer
    blind: bool  # whether the models' names were hidden until the vote
    vote: Vote | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""
    visit: Visit | None = None


Record = AnswerRecord | ComparisonRecord


def check(record: Record) -> None:
    """Raise RequestError for what no page offers: through an API anything may arrive."""
    check_judgement(record)
    keys = [reason.key for reason in REASONS]
    ticked = record.reasons
    if not isinstance(ticked, tuple | list) or len(ticked) > len(keys) or any(key not in keys for key in ticked):
        raise RequestError(f"Reasons are some of {', '.join(keys)}.")
    if not isinstance(record.comment, str) or len(record.comment) > COMMENT_CHARS:
        raise RequestError(f"A comment is a text of at most {COMMENT_CHARS} characters.")
    if isinstance(record, AnswerRecord) and record.edited and len(record.edited) > EDITED_CHARS:
        raise RequestError(f"An edited answer is kept up to {EDITED_CHARS} characters; this one stays in your browser.")
    if not isinstance(record.id, str) or not re.fullmatch("[0-9a-f]{32}", record.id):
        raise RequestError("A record's id is 32 hexadecimal digits.")


def check_judgement(record: Record) -> None:
    """Raise RequestError for a verdict or a vote that there is not."""
    judgement: str | None
    if isinstance(record, AnswerRecord):
        name, judgement, allowed = "verdict", record.verdict, get_args(Verdict)
    else:
        name, judgement, allowed = "vote", record.vote, get_args(Vote)
    if judgement is not None and judgement not in allowed:
        raise RequestError(f"A {name} is {', '.join(allowed)} or none, not {str(judgement)[:100]!r}.")


def without_judgement(record: Record) -> Record:
    """Return a record of which nothing was said."""
    bare = replace(record, reasons=(), comment="", visit=None)
    return replace(bare, verdict=None, edited=None) if isinstance(bare, AnswerRecord) else replace(bare, vote=None)


class UnknownSchema(Exception):
    """A record of a later version of this program."""


def parse(value: Any) -> Record:
    """Return a record from its JSON.

    Unknown keys are passed over. Raises as converting to a type or a missing key does.
    """
    if value["schema"] not in READABLE:
        raise UnknownSchema
    shared: dict[str, Any] = {
        "id": str(value["id"]),
        "time": str(value["time"]),
        "messages": [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in value["messages"]],
        "sampling": dict(value["sampling"]),
        "reasons": tuple(str(reason) for reason in value["reasons"]),
        "comment": str(value["comment"]),
        "visit": None,
    }
    if (visit := value.get("visit")) is not None:
        asked = visit["consent"]
        consent = Consent(int(asked["version"]), str(asked["kept"]), str(asked["purpose"]))
        shared["visit"] = Visit(str(visit["visitor"]), str(visit["conversation"]), consent)
    if value["kind"] == "answer":
        edited = value.get("edited")
        answer = _answer(value["answer"])
        return AnswerRecord(answer=answer, verdict=value["verdict"], edited=edited and str(edited), **shared)
    if value["kind"] != "comparison":
        raise ValueError
    left, right = _answer(value["left"]), _answer(value["right"])
    return ComparisonRecord(left=left, right=right, blind=bool(value["blind"]), vote=value["vote"], **shared)


def _answer(value: Any) -> Answer:
    model, timings = value["model"], value["timings"]
    version = (model.get(name) for name in ("revision", "quantization", "file", "digest"))
    named = ModelVersion(str(model["name"]), *(part and str(part) for part in version))
    return Answer(str(value["text"]), named, timings and _timings(timings), str(value.get("thought", "")))


def _timings(value: Any) -> Timings:
    seconds, total, speed = (float(value[name]) for name in ("first_token", "total", "tokens_per_second"))
    return Timings(seconds, total, int(value["tokens"]), speed)


def to_json(value: Any) -> bytes:
    """Return one line. Half a surrogate pair, which JSON can hold and UTF-8 cannot, stays an escape."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
