"""Conversations as train, validation and test, none of which knows another.

Splits that the data set brings stay as they are, and what of train is linked to them is left out of it. What else is
linked, by a prompt, an exchange or a prompt that is nearly the same, is kept together. An exact join has the last word.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.data.components import Components
from pipeline.data.exact_join import crossing_pairs
from pipeline.data.links import common, exchange_keys, letter_key, prompt_keys, prompt_of
from pipeline.data.near_duplicates import Integers, near_pairs, shingle
from pipeline.data.own_splits import OWN
from pipeline.data.split import SPLITS, shuffled, split

ROUNDS = 10  # of splitting and joining; what MinHash misses is in the first, if at all

Rows = dict[str, Messages]  # by a digest


@dataclass(frozen=True)
class Divided:
    """Rows by split, each in its order, and those of train that are linked to a split that was brought."""

    splits: dict[str, Rows]
    leaks: dict[str, int]  # rows by the split that they are linked to
    common_exchanges: int = 0  # greetings and the like, which tie nothing
    largest_component: int = 1  # rows
    shared: int = 0  # rows of validation that are linked to test and left out of it, where both were brought

    def report(self) -> dict[str, object]:
        """Return the counts, as reports/prepare.json has them."""
        return {
            "common_exchanges": self.common_exchanges,
            "largest_component": self.largest_component,
            "leaks": self.leaks,
            "shared_by_own_splits": self.shared,
        }


def divide(rows: dict[str, Rows], settings: DataSettings, sources: Mapping[str, str] | None = None) -> Divided:
    """Divide those under train into the splits that are not brought; `sources` has the name of each row's, if any.

    Raises:
        UserError: a split would be empty, or two splits cannot be kept apart.
    """
    if settings.leak_threshold is None:
        return _by_letter(rows, settings)
    known = Links(rows, settings.leak_threshold)
    rows, shared = _apart(rows, known)
    rest, leaks = rows["train"], {}
    for name in filter(rows.get, OWN):
        linked = known.linked(rest, rows[name])
        leaks[name] = len(linked)
        rest = {key: messages for key, messages in rest.items() if key not in linked}
    _require_rest(rest, rows, leaks)
    tied = known.ties(rest)
    for _ in range(ROUNDS):
        made = _split(rest, {name: rows[name] for name in leaks}, settings, tied, sources)
        pairs = known.crossing(made, set(leaks))
        if not pairs:
            return Divided(made, leaks, known.common_exchanges, max(map(len, tied.groups())), shared)
        for one, other in pairs:
            tied.tie(one, other)
    one, other = (known.prompts[key] for key in pairs[0])
    raise UserError(
        f"two splits share a prompt above data.leak_threshold {settings.leak_threshold:g}: {one[:80]!r} and "
        f"{other[:80]!r}; raise it, or set it to null to look at exact prompts alone"
    )


def _apart(rows: dict[str, Rows], known: "Links") -> tuple[dict[str, Rows], int]:
    """Return the rows with those of a brought validation left out that are linked to a brought test, and how many."""
    if not all(rows.get(name) for name in OWN):
        return rows, 0
    linked = known.linked(rows["validation"], rows["test"])
    rest = {key: messages for key, messages in rows["validation"].items() if key not in linked}
    if not rest:
        raise UserError(
            "each row of the set's own validation split shares a prompt or an exchange with its test split; leave it "
            "out, and data.validation takes one from train"
        )
    return rows | {"validation": rest}, len(linked)


def _by_letter(rows: dict[str, Rows], settings: DataSettings) -> Divided:
    """Divide by what prompts are to the letter."""
    rest, leaks = rows["train"], {}
    for name in filter(rows.get, OWN):
        letters = {letter_key(messages) for messages in rows[name].values()}
        apart = {key: messages for key, messages in rest.items() if letter_key(messages) not in letters}
        leaks[name], rest = len(rest) - len(apart), apart
    _require_rest(rest, rows, leaks)
    return Divided(_split(rest, {name: rows[name] for name in leaks}, settings), leaks)


def _require_rest(rest: Rows, rows: dict[str, Rows], leaks: Iterable[str]) -> None:
    if not rest:
        raise UserError(
            f"each of the {len(rows['train']):,} rows to train on shares a prompt or an exchange with the set's own "
            f"{' or '.join(leaks)} split; bring others, or set data.own_splits=false"
        )


def _split(
    rest: Rows,
    brought: dict[str, Rows],
    settings: DataSettings,
    tied: Components | None = None,
    sources: Mapping[str, str] | None = None,
) -> dict[str, Rows]:
    sizes = {name: 0 if name in brought else getattr(settings, name) for name in OWN}
    groups = None if tied is None else tied.groups()
    made = split(rest, sizes["validation"], sizes["test"], settings.seed, groups, sources)
    made |= {name: shuffled(part, settings.seed) for name, part in brought.items()}
    return {name: made[name] for name in SPLITS}


class Links:
    """What ties the rows of all splits to one another; rows go by their digests."""

    def __init__(self, parts: dict[str, Rows], threshold: float) -> None:
        rows = {key: messages for part in parts.values() for key, messages in part.items()}
        self.threshold = threshold
        self.prompts = {key: prompt_of(messages) for key, messages in rows.items()}
        exchanges = {key: exchange_keys(messages) for key, messages in rows.items()}
        commons = common(exchanges.values(), len(rows))
        self.common_exchanges = len(commons)
        self.keys = {key: prompt_keys(rows[key], self.prompts[key]) | exchanges[key] - commons for key in rows}
        # By the number of a prompt, since rows that share one are tied anyway.
        self.numbers = {prompt: number for number, prompt in enumerate(sorted(set(self.prompts.values())))}
        self.shingles = shingle(self.numbers)

    def linked(self, rows: Rows, others: Rows) -> set[str]:
        """Return those of `rows` that are linked to one of the others."""
        shared = {link for key in others for link in self.keys[key]}
        found = {key for key in rows if not shared.isdisjoint(self.keys[key])}
        near = {self.prompts[one] for one, _ in self._near(rows.keys() - found, others)}
        return found | {key for key in rows if self.prompts[key] in near}

    def ties(self, rows: Rows) -> Components:
        """Return the rows, those with links in common tied."""
        tied = Components(rows)
        tied.tie_by((key, self.keys[key]) for key in rows)
        here = {self.numbers[self.prompts[key]]: key for key in rows}
        for one, other in near_pairs(self.shingles, self.threshold).tolist():
            if one in here and other in here:
                tied.tie(here[one], here[other])
        return tied

    def crossing(self, splits: dict[str, Rows], brought: set[str]) -> list[tuple[str, str]]:
        """Return the pairs of rows in two splits whose prompts are nearly the same; what is brought stays as it is."""
        train, validation, test = (splits[name] for name in SPLITS)
        between = [] if brought == set(OWN) else self._near(validation, test)
        return self._near([*validation, *test], train) + between

    def _near(self, ones: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
        one_row, other_row = ({self.numbers[self.prompts[key]]: key for key in keys} for keys in (ones, others))
        pairs = crossing_pairs(self.shingles, _sorted(one_row), _sorted(other_row), self.threshold)
        return [(one_row[one], other_row[other]) for one, other in pairs.tolist()]


def _sorted(numbers: Iterable[int]) -> Integers:
    return np.array(sorted(numbers), np.int64)
