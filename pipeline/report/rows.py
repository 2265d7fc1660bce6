"""What was found of each row and question: reports/rows.json, by which a later candidate is paired with this one.

Rows and questions stand in the order in which they were measured. Of a model the first so many were, as many as its
gates needed: two models are compared on the rows that both have.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from pipeline.core.records import Count, Record

SCHEMA = 1

Nats = tuple[float | None, ...]  # null is no finite number


def digests(contents: Iterable[object]) -> tuple[str, ...]:
    """Return what tells each conversation, or question, from the others: of one that comes again, its number, too."""
    seen: Counter[str] = Counter()
    found = []
    for content in contents:
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        seen[digest] += 1
        found.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return tuple(found)


def are_right_or_wrong(*scores: Iterable[float]) -> bool:
    """Return whether each score of each task is 1 or 0, and nothing between."""
    return all(score in (0, 1) for task in scores for score in task)


class ModelRows(Record):
    """What was found of a model."""

    nats: Nats  # of the first so many rows, summed over the tokens that count
    right: tuple[bool, ...] = ()  # whether the replies to the first so many questions were
    items: dict[str, tuple[float, ...]] = Field(default_factory=dict)  # by the harness's task, in the task's order
    general: dict[str, Nats] = Field(default_factory=dict)  # by set of general texts, of each
    preferred: tuple[
        bool | None, ...
    ] = ()  # of each pair, whether the chosen answer is likelier a token; null: unknown

    def loss(self, tokens: Sequence[int]) -> float | None:
        """Return nats a token of the first rows, whose tokens are given; None is no finite number."""
        nats = self.nats[: len(tokens)]
        known = [value for value in nats if value is not None]
        return math.fsum(known) / sum(tokens) if len(known) == len(tokens) and known else None


class RowResults(Record):
    """What was found of each row, by model."""

    made_by: ClassVar[str] = "evaluate"

    schema_version: int = SCHEMA
    rows: tuple[str, ...]  # digest of each conversation's messages
    tokens: tuple[Count, ...]  # of it that count
    numbers: tuple[Count, ...] = ()  # of each row in the test split, from 1
    questions: tuple[str, ...]  # digest of each question, with its answer
    groups: tuple[str, ...]  # of each question
    tasks: tuple[str, ...]  # of each question, within its group
    general: dict[str, tuple[Count, ...]] = Field(default_factory=dict)  # tokens of each general text, by set
    pairs: tuple[str, ...] = ()  # digests of the chosen and the rejected answer with their prompt
    models: dict[str, ModelRows]  # base, tuned, and each file by ManifestFile.key

    @model_validator(mode="after")
    def _lists_each_row_and_question_once(self) -> Self:
        for kind in ("rows", "questions"):
            if twice := [digest for digest, count in Counter(getattr(self, kind)).items() if count > 1]:
                raise ValueError(f"{kind}: {twice[0]} is listed twice")
        return self

    @model_validator(mode="after")
    def _columns_are_of_one_length(self) -> Self:
        for name, of in (("tokens", "rows"), ("groups", "questions"), ("tasks", "questions")):
            counts = len(getattr(self, name)), len(getattr(self, of))
            if counts[0] != counts[1]:
                raise ValueError(f"{name}: {counts[0]:,} of them to {counts[1]:,} {of}")
        return self

    @model_validator(mode="after")
    def _every_model_has_every_general_text(self) -> Self:
        for name, found in self.models.items():
            counts = {kind: len(nats) for kind, nats in found.general.items()}
            if counts != {kind: len(tokens) for kind, tokens in self.general.items()}:
                raise ValueError(f"models.{name}.general: other texts than general has")
        return self

    @model_validator(mode="after")
    def _every_model_has_every_pair(self) -> Self:
        for name, found in self.models.items():
            if len(found.preferred) != len(self.pairs):
                raise ValueError(
                    f"models.{name}.preferred: {len(found.preferred):,} of them to {len(self.pairs):,} pairs"
                )
        return self

    @model_validator(mode="after")
    def _no_model_has_more_than_there_are(self) -> Self:
        for name, found in self.models.items():
            for kind, of in (("nats", "rows"), ("right", "questions")):
                counts = len(getattr(found, kind)), len(getattr(self, of))
                if counts[0] > counts[1]:
                    raise ValueError(f"models.{name}.{kind}: {counts[0]:,} of them to {counts[1]:,} {of}")
        return self
