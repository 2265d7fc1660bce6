"""Which statements stand: what most visitors say, once, and of nobody too much."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.config import LearnSettings
from pipeline.data.components import Components
from pipeline.data.near_duplicates import near_pairs, shingle
from pipeline.data.split import seeded
from pipeline.learning.statements import Statement

REPEATED = "the visitor's own earlier word on the same"
TIED = "on which visitors are divided"
OUTVOTED = "that more visitors contradict"
AGREEING = "that say what a row says that is kept"
NEAR = "nearly the same as a row that is kept"
OVER_SHARE = "beyond what one visitor's may count"


@dataclass(frozen=True)
class Standing:
    """A statement that is learnt or judged by, and the records of others that say the same, with their visitors."""

    statement: Statement
    agreed_by: tuple[tuple[str, str], ...] = ()

    @property
    def agreed(self) -> tuple[str, ...]:
        """The records of others."""
        return tuple(record for record, _ in self.agreed_by)


def standing(statements: Sequence[Statement], settings: LearnSettings) -> tuple[list[Standing], Counter[str]]:
    """Return the statements that stand, and why how many others do not.

    A row is one visitor's, drawn of those who agree; so a prompt that many were shown ties nobody to the others.
    """
    left_out: Counter[str] = Counter()
    agreed = [one for group in _by_question(statements) for one in _agreed(group, settings.seed, left_out)]
    distinct = _distinct(agreed, settings, left_out)
    return _capped(distinct, settings, left_out), left_out


def _by_question(statements: Iterable[Statement]) -> list[list[Statement]]:
    groups: dict[str, list[Statement]] = defaultdict(list)
    for statement in statements:
        groups[statement.question].append(statement)
    return list(groups.values())


def _agreed(group: Sequence[Statement], seed: int, left_out: Counter[str]) -> list[Standing]:
    """Return the one statement that most visitors make on a question; none where as many say otherwise."""
    latest = {one.visitor: one for one in group}  # they come in the order of time
    left_out[REPEATED] += len(group) - len(latest)
    sides: dict[str, list[Statement]] = defaultdict(list)
    for one in latest.values():
        sides[one.side].append(one)
    most = max(map(len, sides.values()))
    winners = [side for side in sides.values() if len(side) == most]
    if len(winners) > 1:
        left_out[TIED] += len(latest)
        return []
    left_out[OUTVOTED] += len(latest) - most
    left_out[AGREEING] += most - 1
    first, *others = sorted(winners[0], key=lambda one: seeded(seed, one.record))
    return [Standing(first, tuple((one.record, one.visitor) for one in others))]


def _distinct(rows: list[Standing], settings: LearnSettings, left_out: Counter[str]) -> list[Standing]:
    """Return rows without those that nearly are another, of which the one that most say is kept."""
    if settings.near_duplicates is None or not rows:
        return rows
    tied = Components(len(rows))
    for one, other in near_pairs(shingle(row.statement.text for row in rows), settings.near_duplicates).tolist():
        tied.tie(one, other)
    groups = tied.groups(np.arange(len(rows)))
    kept = [min(group, key=lambda n: (-len(rows[n].agreed), seeded(settings.seed, _name(rows[n])))) for group in groups]
    left_out[NEAR] += len(rows) - len(kept)
    return [rows[number] for number in sorted(kept)]


def _capped(rows: list[Standing], settings: LearnSettings, left_out: Counter[str]) -> list[Standing]:
    """Return so many rows of each visitor at most, drawn."""
    counts: Counter[str] = Counter()
    kept = []
    for row in sorted(rows, key=lambda row: seeded(settings.seed, _name(row))):
        counts[row.statement.visitor] += 1
        if counts[row.statement.visitor] <= settings.per_visitor:
            kept.append(row)
    left_out[OVER_SHARE] += len(rows) - len(kept)
    return kept


def _name(row: Standing) -> str:
    """Return what tells a row from all others: a record that finds both answers bad makes two."""
    return f"{row.statement.record} {row.statement.question}"
