"""Records as duels of candidate and champion: blind votes, and judged conversations of the one against the other's.

Who is who is told by the digests of the files that answered, and by no name. A judged conversation of the candidate
meets the next one of the champion that has met none: chance says who is answered by whom, so both were given alike.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.data.folding import fold
from pipeline.data.lines import BadLine, Row
from pipeline.learning.standing import OVER_SHARE
from pipeline.learning.statements import (
    NO_JUDGEMENT,
    SAME,
    Answer,
    Said,
    Statements,
    Visit,
    is_of_same,
    latest,
    unusable,
)

NOT_BLIND = "a vote that was not blind"
OF_OTHERS = "of other models"
OF_ANOTHER_TIME = "from before the canary, or after its last day"
JUDGED_BEFORE = "of a conversation that counts already"

Side = Literal["candidate", "champion"]


@dataclass(frozen=True)
class Period:
    """When records count, as they tell the time."""

    first: str
    last: str


@dataclass(frozen=True)
class Duel:
    """What speaks for one of the two: 1 for the candidate, -1 for the champion, 0 for neither."""

    records: tuple[str, ...]
    visitor: str
    value: float
    is_vote: bool


@dataclass
class Heard:
    """The duels in the order of time, and what was said of conversations; `statements` has what is left out."""

    duels: list[Duel] = field(default_factory=list)
    verdicts: Counter[tuple[Side, bool]] = field(default_factory=Counter)  # conversations that are good, or bad
    statements: Statements = field(default_factory=Statements)


def hear(
    rows: Iterable[tuple[str, Row | BadLine]],
    sides: dict[str, Side],
    period: Period,
    per_visitor: int,
    forgotten: frozenset[str],
) -> Heard:
    """Return what records say of two models.

    Args:
        rows: with the names of their files.
        sides: of the digests of both models' files.
        period: of the canary.
        per_visitor: duels at most of one visitor; and judged conversations of the champion.
        forgotten: digests of visitors whose records are none any more.
    """
    heard = Heard()
    tally = _Tally(heard, sides, per_visitor)
    for place, said in sorted(latest(rows, heard.statements), key=lambda one: (one[1].time, one[1].id)):
        why = unusable(said, forgotten)
        why = why or (None if period.first <= said.time <= period.last else OF_ANOTHER_TIME)
        if why := why or (tally.compare(said) if said.answer is None else tally.judge(said)):
            heard.statements.leave_out(why, place)
    return heard


class _Tally:
    """Adds records to what was heard, one after another; each method returns why one does not count."""

    def __init__(self, heard: Heard, sides: dict[str, Side], per_visitor: int) -> None:
        self._heard, self._sides, self._most = heard, sides, per_visitor
        self._counts: Counter[tuple[str, Side]] = Counter()
        self._judged: set[tuple[str, Side]] = set()
        self._waiting: dict[Side, deque[tuple[Said, bool]]] = {"candidate": deque(), "champion": deque()}

    def compare(self, said: Said) -> str | None:
        """Add a vote on two answers."""
        left, right = self._side(said.left), self._side(said.right)
        if left is None or right is None or left == right:
            return OF_OTHERS
        if not said.blind:
            return NOT_BLIND
        if is_of_same(said):
            return SAME
        if not self._counts_for(said, "candidate"):
            return OVER_SHARE
        won = {"left": left, "right": right}.get(said.vote or "")
        self._add(0.0 if won is None else 1.0 if won == "candidate" else -1.0, said)
        return None

    def judge(self, said: Said) -> str | None:
        """Add what was said of one answer: who edits it finds it bad."""
        side, found = self._side(said.answer), is_good(said)
        if side is None:
            return OF_OTHERS
        if found is None:
            return NO_JUDGEMENT
        conversation = (_visit(said).conversation, side)
        if conversation in self._judged:
            return JUDGED_BEFORE
        if not self._counts_for(said, side):
            return OVER_SHARE
        self._judged.add(conversation)
        self._heard.verdicts[side, found] += 1
        self._waiting[side].append((said, found))
        if all(self._waiting.values()):
            (one, is_one_good), (other, is_other_good) = (waiting.popleft() for waiting in self._waiting.values())
            self._add(float(is_one_good) - float(is_other_good), one, other)
        return None

    def _side(self, answer: Answer | None) -> Side | None:
        return self._sides.get(answer.model.digest or "") if answer else None

    def _counts_for(self, said: Said, side: Side) -> bool:
        """Return whether the visitor has not said as much of a side as counts, and count it."""
        key = (_visit(said).visitor, side)
        self._counts[key] += 1
        return self._counts[key] <= self._most

    def _add(self, value: float, *said: Said) -> None:
        records = tuple(one.id for one in said)
        self._heard.duels.append(Duel(records, _visit(said[0]).visitor, value, said[0].answer is None))


def is_good(said: Said) -> bool | None:
    """Return whether an answer is found good: what has to be edited is not. None where neither is said."""
    if said.edited and said.answer and fold(said.edited) != fold(said.answer.text):
        return False
    return said.verdict == "good" if said.verdict else None


def _visit(said: Said) -> Visit:
    assert said.visit  # noqa: S101 - `unusable` leaves out all others
    return said.visit
