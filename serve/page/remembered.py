"""The answers lately given, remembered for feedback."""

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from llama.errors import RequestError
from serve.feedback import Answer, AnswerRecord, FeedbackStore, ModelVersion, Record, Visit, now, without_judgement
from serve.models.registry import Model

REMEMBERED = 32 << 20  # characters of conversations and answers that can be judged


class Given(NamedTuple):
    """An answer, or the two of a comparison, as it was last judged."""

    record: Record
    models: tuple[Model, ...]  # that gave it, or both


class Answers:
    """The answers lately given, by id, for whoever judges them: the browser sends the id back, and no text.

    So nobody can put words into a model's mouth, and an id cannot be guessed. The longest unused are forgotten.
    """

    def __init__(self, store: FeedbackStore, room: int = REMEMBERED) -> None:
        """Keep answers; what is said of them goes to the store; `room` is in characters."""
        self._store, self._room = store, room
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def remember(self, record: Record, *models: Model) -> None:
        """Take an answer in, or what was said of it, with the model that gave it, or both of a comparison."""
        with self._lock:
            given = Given(record, models)
            self._characters += _characters(given) - _characters(self._given.pop(record.id, None))
            self._given[record.id] = given
            while self._characters > self._room:
                _, forgotten = self._given.popitem(last=False)
                self._characters -= _characters(forgotten)

    def get(self, answer_id: str) -> Record | None:
        """Return the record as it was last judged."""
        given = self.given(answer_id)
        return given.record if given else None

    def given(self, answer_id: str) -> Given | None:
        """Return the same with the models that it was given by."""
        return self._given.get(answer_id)

    def judge(self, answer_id: str, visit: Visit, **judgement: Any) -> Record:
        """Keep what is said of an answer; it is on the disk when this returns.

        Args:
            answer_id: the record's.
            visit: who says it; without a conversation, it is of that which it was first judged in, or stands alone.
            judgement: the fields that change.

        Raises RequestError.
        """
        given = self.given(answer_id)
        if given is None:
            raise RequestError(
                "The server does not know this answer, or not yet all of it: wait for its end, or ask again."
            )
        record = given.record
        if record.visit and record.visit.visitor != visit.visitor:
            raise RequestError("Somebody else has judged this answer: ask again for one of your own.")
        before = record.visit.conversation if record.visit else answer_id
        visit = replace(visit, conversation=visit.conversation or before)
        record = replace(_with_versions(given), time=now(), visit=visit, **judgement)
        self._store.add(record)
        self.remember(record, *given.models)
        return record

    def of_visitor(self, visitor: str) -> list[Record]:
        """Return what a visitor has said, the newest first."""
        return self._store.of_visitor(visitor)

    def forget(self, visitor: str, ids: Collection[str] | None = None) -> set[str]:
        """Delete what a visitor has said, of some answers or all; return of which. Raises RequestError."""
        gone = self._store.forget(visitor, ids)
        for known in [self.given(answer_id) for answer_id in gone]:
            if known:
                self.remember(without_judgement(known.record), *known.models)
        return gone


def _with_versions(given: Given) -> Record:
    """Return the record with the models' revisions, for which an adapter may have to be read whole."""
    record, models = given
    if isinstance(record, AnswerRecord):
        return replace(record, answer=_with_version(record.answer, *models))
    left, right = map(_with_version, (record.left, record.right), models)
    return replace(record, left=left, right=right)


def _with_version(answer: Answer, model: Model) -> Answer:
    file = ModelVersion(model.name, model.revision, model.quantization, model.path.name, model.digest)
    return replace(answer, model=file)


def _characters(given: Given | None) -> int:
    if given is None:
        return 0
    record = given.record
    answers = [record.answer] if isinstance(record, AnswerRecord) else [record.left, record.right]
    texts = [*(message["content"] for message in record.messages), *(answer.text for answer in answers), record.comment]
    edited = record.edited if isinstance(record, AnswerRecord) else None
    return sum(map(len, texts)) + len(edited or "")
