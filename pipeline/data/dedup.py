"""Duplicates: the same roles with the same texts.

Exact ones are the same up to Unicode composition (NFC) and the amount of whitespace; folded ones also up to case,
punctuation and what else `fold` does not hear.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.data_settings import DataSettings
from pipeline.core.messages import said
from pipeline.data.components import Components
from pipeline.data.corpus import Corpus
from pipeline.data.near_duplicates import Integers, near_pairs, taken

Pairs = list[tuple[int, int]]  # a row that is left out, and the one that stays in its place


@dataclass(frozen=True)
class Distinct:
    """The rows that are left of each split, and those that are not."""

    splits: dict[str, Integers]
    duplicates: Pairs
    near_duplicates: Pairs
    by_source: dict[str, int]  # duplicates

    def clusters(self) -> list[list[int]]:
        """Return the near-duplicates by the row that stays of them, which comes first."""
        found: dict[int, list[int]] = defaultdict(list)
        for row, kept in self.near_duplicates:
            found[kept].append(row)
        return [[kept, *rows] for kept, rows in found.items()]

    def report(self) -> dict[str, object]:
        """Return the counts, as reports/prepare.json has them."""
        return {
            "duplicates": len(self.duplicates),
            "near_duplicates": len(self.near_duplicates),
            "duplicates_by_source": self.by_source,
        }


def drop_repeated(corpus: Corpus, parts: Mapping[str, Integers], settings: DataSettings) -> Distinct:
    """Return the rows of each split without duplicates, and those of train without what is nearly one."""
    found = {name: duplicates(corpus, rows, settings.duplicates) for name, rows in parts.items()}
    splits = {name: without(rows, found[name]) for name, rows in parts.items()}
    near = near_duplicates(corpus, splits["train"], settings.near_duplicates)
    repeated = [pair for pairs in found.values() for pair in pairs]
    counts = Counter(corpus.sources[row] for row, _ in repeated)
    by_source = {name: counts[name] for name in dict.fromkeys(corpus.sources)}
    return Distinct(splits | {"train": without(splits["train"], near)}, repeated, near, by_source)


def duplicates(corpus: Corpus, rows: Integers, how: str) -> Pairs:
    """Return the rows that say what another says, which stays: the least in code point order, wherever it stands.

    Args:
        corpus: that has them.
        rows: numbers.
        how: `data.duplicates`; where it is off, those of a digest are numbered, and all stay.
    """
    keys = corpus.folded if how == "folded" else corpus.digests
    groups = _groups(keys, rows)
    if how != "off":
        return [(row, kept) for group in groups for kept in [_least(corpus, group)] for row in group if row != kept]
    for group in groups:
        ordered = sorted(group, key=lambda row: int(corpus.texts[row]))
        corpus.numbers |= {row: number for number, row in enumerate(ordered) if number}
    return []


def near_duplicates(corpus: Corpus, rows: Integers, threshold: float | None) -> Pairs:
    """Return the rows that overlap by the threshold with the longest of their cluster, which stays."""
    if threshold is None:
        return []
    tied = Components(len(rows))
    for one, other in near_pairs(taken(corpus.wholes, rows), threshold).tolist():
        tied.tie(one, other)
    groups = [rows[group].tolist() for group in tied.groups(np.arange(len(rows))) if group[1:]]
    longest = [max(group, key=lambda row: (corpus.sizes[row], corpus.name(row))) for group in groups]
    return [(row, kept) for group, kept in zip(groups, longest, strict=True) for row in group if row != kept]


def without(rows: Integers, left_out: Pairs) -> Integers:
    """Return rows less those that are left out."""
    return rows[~np.isin(rows, [row for row, _ in left_out])]


def _groups(keys: Sequence[bytes], rows: Integers) -> list[list[int]]:
    """Return the rows that share a key with others."""
    first: dict[bytes, int] = {}
    more: dict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        if (other := first.setdefault(keys[row], row)) != row:
            more[other].append(row)
    return [[row, *others] for row, others in more.items()]


def _least(corpus: Corpus, group: list[int]) -> int:
    """Return the row whose texts come first; most are the same to the letter, and need no look."""
    if len(set(corpus.texts[group].tolist())) == 1:
        return group[0]
    return min(group, key=lambda row: list(map(said, next(corpus.messages([row])))))
