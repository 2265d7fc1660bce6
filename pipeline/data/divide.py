"""Conversations as train, validation and test, none of which knows another.

Splits that the data set brings stay as they are, and what of train is linked to them is left out of it. What else is
linked, by a prompt, an exchange or a prompt that is nearly the same, is kept together. An exact join has the last word.
Where comparisons alone bring a split, conversations beside them have their share of it as ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.data.components import Components
from pipeline.data.corpus import NOTHING, Corpus
from pipeline.data.dedup import Pairs, without
from pipeline.data.exact_join import crossing_pairs
from pipeline.data.near_duplicates import Integers, Words, near_pairs
from pipeline.data.own_splits import OWN
from pipeline.data.split import SPLITS, Groups, Rows, shuffled, split
from pipeline.data.traits import UNASKED

ROUNDS = 10  # of splitting and joining; what MinHash misses is in the first, if at all
COMMON_ROWS = 5  # that an exchange is in at least, and in more, before it may be common
NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Divided:
    """Rows by split, each in its order, and those of train that are linked to a split that was brought."""

    splits: Rows
    leaks: dict[str, Pairs]  # by that split: the row that is left out, and one that it is linked to
    common_exchanges: int = 0  # greetings and the like, which tie nothing
    components: Groups = field(default_factory=list)
    shared: Pairs = field(default_factory=list)  # rows of validation left out for test, where both were brought

    @property
    def largest_component(self) -> int:
        """How many rows it has."""
        return max(map(len, self.components), default=1)

    def report(self) -> dict[str, object]:
        """Return the counts, as reports/prepare.json has them."""
        return {
            "common_exchanges": self.common_exchanges,
            "largest_component": self.largest_component,
            "leaks": {name: len(pairs) for name, pairs in self.leaks.items()},
            "shared_by_own_splits": len(self.shared),
        }


def divide(corpus: Corpus, rows: Rows, settings: DataSettings) -> Divided:
    """Divide those under train into the splits that are not brought.

    Raises:
        UserError: a split would be empty, or two splits cannot be kept apart.
    """
    known = Links(corpus, np.concatenate(list(rows.values())), settings)
    rows, shared = _apart(rows, known)
    rest, leaks = rows["train"], dict[str, Pairs]()
    for name in (name for name in OWN if len(rows.get(name, ()))):
        leaks[name] = known.linked(rest, rows[name])
        rest = without(rest, leaks[name])
    _require_rest(rest, rows, leaks)
    brought = {name: rows[name] for name in leaks}
    if settings.leak_threshold is None:
        return Divided(_split(corpus, rest, brought, settings), leaks, shared=shared)
    tied = known.ties(rest)
    for _ in range(ROUNDS):
        groups = tied.groups(rest)
        made = _split(corpus, rest, brought, settings, groups)
        pairs = known.crossing(made, set(leaks) - _of_comparisons(corpus, rest, brought))
        if not len(pairs):
            return Divided(made, leaks, known.common_exchanges, groups, shared)
        for one, other in pairs.tolist():
            tied.tie(one, other)
    one, other = (_prompt(messages) for messages in corpus.messages(pairs[0].tolist()))
    raise UserError(
        f"two splits share a prompt above data.leak_threshold {settings.leak_threshold:g}: {one[:80]!r} and "
        f"{other[:80]!r}; raise it, or set it to null to look at exact prompts alone"
    )


def _apart(rows: Rows, known: "Links") -> tuple[Rows, Pairs]:
    """Return the rows with those of a brought validation left out that are linked to a brought test, and these."""
    if not all(len(rows.get(name, ())) for name in OWN):
        return rows, []
    linked = known.linked(rows["validation"], rows["test"])
    rest = without(rows["validation"], linked)
    if not len(rest):
        raise UserError(
            "each row of the set's own validation split shares a prompt or an exchange with its test split; leave it "
            "out, and data.validation takes one from train"
        )
    return rows | {"validation": rest}, linked


def _require_rest(rest: Integers, rows: Rows, leaks: Iterable[str]) -> None:
    if not len(rest):
        raise UserError(
            f"each of the {len(rows['train']):,} rows to train on shares a prompt or an exchange with the set's own "
            f"{' or '.join(leaks)} split; bring others, or set data.own_splits=false"
        )


def _split(corpus: Corpus, rest: Integers, brought: Rows, settings: DataSettings, groups: Groups | None = None) -> Rows:
    sizes = {name: 0 if name in brought else getattr(settings, name) for name in OWN}
    made = split(corpus, rest, sizes["validation"], sizes["test"], settings.seed, groups)
    beside = _conversations_beside(corpus, made["train"], _of_comparisons(corpus, rest, brought), settings, groups)
    made["train"] = made["train"][~np.isin(made["train"], [row for part in beside.values() for row in part])]
    own = {name: np.r_[part, beside.get(name, NO_ROWS)] for name, part in brought.items()}
    made |= {name: shuffled(corpus, part.tolist(), settings.seed) for name, part in own.items()}
    return {name: made[name] for name in SPLITS}


def _of_comparisons(corpus: Corpus, rest: Integers, brought: Rows) -> set[str]:
    """Return the splits that comparisons alone bring, while there are conversations to divide."""
    if corpus.compared[rest].all():
        return set()
    return {name for name, part in brought.items() if corpus.compared[part].all()}


def _conversations_beside(
    corpus: Corpus, train: Integers, names: set[str], settings: DataSettings, groups: Groups | None
) -> Rows:
    """Return the share of conversations in splits that comparisons bring, none of them linked to one of train's."""
    if not names:
        return {}
    if groups is None:
        asked = {corpus.letters[row] for row in train[corpus.compared[train]].tolist()}
        free = [row for row in train[~corpus.compared[train]].tolist() if corpus.letters[row] not in asked]
    else:
        here = set(train.tolist())
        groups = [group for group in groups if here.issuperset(group) and not corpus.compared[group].any()]
        free = [row for group in groups for row in group]
    if len(free) < len(SPLITS):
        return {}
    sizes = {name: getattr(settings, name) if name in names else 0 for name in OWN}
    made = split(corpus, np.array(free, np.int64), sizes["validation"], sizes["test"], settings.seed, groups)
    return {name: made[name] for name in names}


def _prompt(messages: Messages) -> str:
    return " ".join(message["content"] for message in messages if message["role"] not in UNASKED)


class Links:
    """What ties the rows of all splits to one another; without a threshold, prompts to the letter alone."""

    def __init__(self, corpus: Corpus, rows: Integers, settings: DataSettings) -> None:
        self._corpus, self._threshold = corpus, settings.leak_threshold
        self._common = 1.0 if settings.common_exchange is None else settings.common_exchange  # share of the rows
        letters = np.array([int.from_bytes(letter[:8]) for letter in corpus.letters], np.uint64)
        self.common_exchanges = 0
        self._keys, self._owners = letters, np.arange(len(corpus))
        self._numbers = np.full(len(corpus), -1)  # of prompts that are compared
        if self._threshold is not None:
            self._numbers = corpus.prompt_numbers(self._owners)
            exchanges, owners = self._telling_exchanges(rows)
            prompts = np.where(corpus.prompts == NOTHING, letters, corpus.prompts)
            self._keys, self._owners = np.r_[prompts, exchanges], np.r_[self._owners, owners]

    def linked(self, rows: Integers, others: Integers) -> Pairs:
        """Return those of `rows` that are linked to one of the others, each with one."""
        keys, owners = self._of(others)
        other_of = dict(zip(keys.tolist(), owners.tolist(), strict=True))
        keys, owners = self._of(rows)
        shared = np.isin(keys, np.fromiter(other_of, np.uint64, len(other_of)))
        found = {row: other_of[key] for row, key in zip(owners[shared].tolist(), keys[shared].tolist(), strict=True)}
        rest = rows[~np.isin(rows, list(found))]
        near = dict(self._near(rest, others).tolist())
        return sorted((found | near).items())

    def ties(self, rows: Integers) -> Components:
        """Return the rows, those with links in common tied."""
        tied = Components(len(self._corpus))
        tied.tie_by(*self._of(rows))
        if self._threshold is not None:
            asking = self._asking(rows)
            for one, other in near_pairs(self._corpus.shingles, self._threshold).tolist():
                if asking[one] >= 0 and asking[other] >= 0:
                    tied.tie(int(asking[one]), int(asking[other]))
        return tied

    def crossing(self, splits: Rows, brought: set[str]) -> Integers:
        """Return the pairs of rows in two splits whose prompts are nearly the same; what is brought stays as it is."""
        train, validation, test = (splits[name] for name in SPLITS)
        between = self._near(validation, test if brought != set(OWN) else NO_ROWS)
        return np.concatenate([self._near(train, np.r_[validation, test]), between])

    def _telling_exchanges(self, rows: Integers) -> tuple[Words, Integers]:
        """Return the exchanges of rows, and whose they are, but for those that too many have to say anything."""
        here = np.zeros(len(self._corpus), np.bool_)
        here[rows] = True
        keys, owners = self._corpus.exchanges, self._corpus.exchange_owners
        keys, owners = keys[here[owners]], owners[here[owners]]
        different, counts = np.unique(keys, return_counts=True)
        commons = different[counts > max(COMMON_ROWS, self._common * len(rows))]
        self.common_exchanges = len(commons)
        telling = ~np.isin(keys, commons)
        return keys[telling], owners[telling]

    def _of(self, rows: Integers) -> tuple[Words, Integers]:
        here = np.zeros(len(self._corpus), np.bool_)
        here[rows] = True
        mine = here[self._owners]
        return self._keys[mine], self._owners[mine]

    def _near(self, rows: Integers, others: Integers) -> Integers:
        """Return the pairs of a row and one of the others whose prompts overlap by the threshold."""
        if self._threshold is None or not len(rows) or not len(others):
            return np.empty((0, 2), np.int64)
        fewer, more = (np.unique(numbers[numbers >= 0]) for numbers in (self._numbers[others], self._numbers[rows]))
        pairs = crossing_pairs(self._corpus.shingles, fewer, more, self._threshold)
        beside = np.full(len(self._corpus.asked) + 1, -1)
        beside[pairs[:, 1]] = self._asking(others)[pairs[:, 0]]
        partners = beside[self._numbers[rows]]
        return np.stack([rows, partners], axis=1)[partners >= 0]

    def _asking(self, rows: Integers) -> Integers:
        """Return for each prompt one of the rows that ask it, or -1; the last place is of rows that ask nothing."""
        asking = np.full(len(self._corpus.asked) + 1, -1)
        asking[self._numbers[rows]] = rows
        asking[-1] = -1
        return asking
