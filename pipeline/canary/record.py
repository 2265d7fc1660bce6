"""What is kept of a canary, as a tag of the candidate's version and as reports/canary.json."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from pipeline.canary.decision import Decision
from pipeline.canary.duels import Duel, Heard, Side
from pipeline.core.config import CanarySettings
from pipeline.core.records import Count, Record, Share

Ending = Literal["better", "worse", "undecided", "ended"]
Action = Literal["promoted", "withdrawn", "told"]


class Contender(Record):
    """A version of the registered model, by its file."""

    version: str
    sha256: str


class Won(Record):
    """Duels, by who has won them."""

    candidate: Count
    champion: Count
    neither: Count


class Judged(Record):
    """Conversations of one model."""

    good: Count
    bad: Count


class Rate(Record):
    """The candidate's share of duels, a draw half a win, and between what it lies."""

    value: Share
    low: Share
    high: Share


class Outcome(Record):
    """What the records say, as they are."""

    level: Share
    per_visitor: Count
    votes: Won  # blind
    conversations: Won  # of the one against the other's
    judged: dict[str, Judged]  # conversations of each, those that have met none too
    visitors: Count
    win_rate: Rate
    records: Count
    records_digest: str  # of the ids of those that it rests on, in order
    left_out: dict[str, Count]


class CanaryRecord(Record):
    """How a canary ended."""

    made_by: ClassVar[str] = "canary"

    schema_version: int = 1
    model: str
    candidate: Contender
    champion: Contender
    started: str
    decided: str
    found: Ending
    action: Action
    why: str
    outcome: Outcome

    @classmethod
    def remedy(cls) -> str:
        """Return what to do about a file that is damaged, or another version's."""
        return "remove the tag `canary` of the version in MLflow: `tunesmith canary watch` then decides anew"


def outcome(heard: Heard, decision: Decision, settings: CanarySettings) -> Outcome:
    """Return the figures that a decision rests on."""
    duels = heard.duels[: decision.duels]
    records = [record for duel in duels for record in duel.records]
    left_out = {why: count for why, count in sorted(heard.statements.left_out.items()) if count}
    value, low, high = decision.bounds
    return Outcome(
        level=settings.level,
        per_visitor=settings.per_visitor,
        votes=_won([duel for duel in duels if duel.is_vote]),
        conversations=_won([duel for duel in duels if not duel.is_vote]),
        judged={side: _judged(heard, side) for side in ("candidate", "champion")},
        visitors=len({duel.visitor for duel in duels}),
        win_rate=Rate(value=value, low=low, high=high),
        records=len(records),
        records_digest=hashlib.sha256("\n".join(records).encode()).hexdigest(),
        left_out=left_out,
    )


def _won(duels: Sequence[Duel]) -> Won:
    counts = Counter(duel.value for duel in duels)
    return Won(candidate=counts[1.0], champion=counts[-1.0], neither=counts[0.0])


def _judged(heard: Heard, side: Side) -> Judged:
    return Judged(good=heard.verdicts[side, True], bad=heard.verdicts[side, False])
