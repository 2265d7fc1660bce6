"""All pairs across two sets of texts that overlap by a threshold: an exact join, which misses none.

Of two sets whose overlap reaches the threshold, the rarest few members (so many that the others cannot make it up) have
one in common: a prefix filter. What shares one is compared. The texts of the larger set are looked at in chunks, and
most of them go at once, since too few of their members are known to the smaller set.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.data.near_duplicates import CHUNK, Hashes, Integers, Shingles, chunks, overlaps

BUCKETS = 4  # of the table, for each known shingle


class Entries(NamedTuple):
    """Shingles of texts, by how rare they are, and which text each is of."""

    ranks: Integers
    owners: Integers


def crossing_pairs(shingles: Shingles, ones: Integers, others: Integers, threshold: float) -> Integers:
    """Return the pairs of a text of `ones`, which had better be the smaller set, and one of `others` that overlap."""
    found = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(shingles, ones, others, threshold):
        less, more = np.sort(shingles.sizes[pairs], axis=1).T
        pairs = pairs[less >= threshold * more - 1e-9]
        found.append(pairs[overlaps(shingles, pairs) >= threshold])
    return np.unique(np.concatenate(found), axis=0)


def _candidates(shingles: Shingles, ones: Integers, others: Integers, threshold: float) -> Iterator[Integers]:
    """Yield the pairs that have a shingle of their prefixes in common, a chunk at a time."""
    known = _Known(shingles, ones)
    prefixes = _prefixes(known.found(*shingles.of(ones)), shingles.sizes[ones], threshold)
    order = np.argsort(prefixes.ranks, kind="stable")
    ranks, owners = prefixes.ranks[order], prefixes.owners[order]
    for some in chunks(shingles, others):
        left = _prefixes(known.found(*shingles.of(some)), shingles.sizes[some], threshold)
        first, last = (np.searchsorted(ranks, left.ranks, side=side) for side in ("left", "right"))
        widths = last - first
        ends = np.cumsum(widths)
        for begin in range(0, int(ends[-1]) if len(ends) else 0, CHUNK):
            places = np.arange(begin, min(begin + CHUNK, int(ends[-1])))
            entry = np.searchsorted(ends, places, side="right")
            beside = owners[first[entry] + places - (ends - widths)[entry]]
            codes = np.unique(beside * len(some) + left.owners[entry])
            one, other = np.divmod(codes, len(some))
            yield np.stack([ones[one], some[other]], axis=1)


class _Known:
    """The different shingles of one set of texts, and how rare each is there.

    Hashes are spread evenly, so a table by their first bits says where one would stand, but for a step or two.
    """

    def __init__(self, shingles: Shingles, rows: Integers) -> None:
        self._hashes, counts = np.unique(shingles.of(rows)[0], return_counts=True)
        self._ranks = np.empty(len(counts), np.int64)  # from the rarest on
        self._ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        bits = min(31, (BUCKETS * len(self._hashes)).bit_length())
        self._shift = np.uint32(32 - bits)
        begins = np.arange(2**bits, dtype=np.uint32) << self._shift
        self._firsts = np.r_[np.searchsorted(self._hashes, begins), len(self._hashes)].astype(np.int32)

    def found(self, hashes: Hashes, owners: Integers) -> Entries:
        """Return those of some shingles that are known."""
        places, numbers = self._numbered(hashes)
        return Entries(self._ranks[numbers], owners[places])

    def _numbered(self, hashes: Hashes) -> tuple[Integers, Integers]:
        """Return where the known ones stand, and their numbers."""
        buckets = hashes >> self._shift
        numbers, last = self._firsts[buckets], self._firsts[buckets + 1] - 1
        places = np.flatnonzero(numbers <= last)
        hashes, numbers, last = hashes[places], numbers[places], last[places]
        while (behind := (numbers < last) & (self._hashes[numbers] < hashes)).any():
            numbers += behind
        known = self._hashes[numbers] == hashes
        return places[known], numbers[known]


def _prefixes(entries: Entries, sizes: Integers, threshold: float) -> Entries:
    """Return the rarest shingles of each text, as many as the threshold asks for, of which unknown ones come first."""
    known = np.bincount(entries.owners, minlength=len(sizes))
    room = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1 - (sizes - known)
    may = room[entries.owners] > 0
    ranks, owners = entries.ranks[may], entries.owners[may]
    order = np.lexsort((ranks, owners))
    ranks, owners = ranks[order], owners[order]
    counts = np.bincount(owners, minlength=len(sizes))
    within = np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
    keep = within < room[owners]
    return Entries(ranks[keep], owners[keep])
