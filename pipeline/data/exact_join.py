"""All pairs across two sets of texts that overlap by a threshold: an exact join, which misses none.

Of two sets whose overlap reaches the threshold, the rarest few members (so many that the others cannot make it up) have
one in common: a prefix filter. What shares one is compared.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.data.near_duplicates import CHUNK, Integers, Shingles, overlaps


def crossing_pairs(shingles: Shingles, ones: Integers, others: Integers, threshold: float) -> Integers:
    """Return the pairs of a text of `ones` and one of `others` that overlap by the threshold."""
    found = [np.empty((0, 2), np.int64)]
    for codes in _candidates(shingles, ones, others, threshold):
        one, other = np.divmod(codes, len(others))
        pairs = np.stack([ones[one], others[other]], axis=1)
        less, more = np.sort(shingles.sizes[pairs], axis=1).T
        pairs = pairs[less >= threshold * more - 1e-9]
        found.append(pairs[overlaps(shingles, pairs) >= threshold])
    return np.unique(np.concatenate(found), axis=0)


def _candidates(shingles: Shingles, ones: Integers, others: Integers, threshold: float) -> Iterator[Integers]:
    """Yield codes of the pairs that have a shingle of their prefixes in common, a chunk at a time."""
    (hashes, owners), (other_hashes, other_owners) = shingles.of(ones), shingles.of(others)
    known, numbers, counts = np.unique(np.r_[hashes, other_hashes], return_inverse=True, return_counts=True)
    rarity = np.empty(len(known), np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(known))
    ranks = rarity[numbers]
    left, left_owners = _prefixes(ranks[: len(hashes)], owners, threshold)
    right, right_owners = _prefixes(ranks[len(hashes) :], other_owners, threshold)
    order = np.argsort(right, kind="stable")
    right, right_owners = right[order], right_owners[order]
    first, last = (np.searchsorted(right, left, side=side) for side in ("left", "right"))
    reached = np.flatnonzero(last > first)
    widths = (last - first)[reached]
    ends = np.cumsum(widths)
    for begin in range(0, int(ends[-1]) if len(ends) else 0, CHUNK):
        places = np.arange(begin, min(begin + CHUNK, int(ends[-1])))
        entry = np.searchsorted(ends, places, side="right")
        beside = first[reached[entry]] + places - (ends - widths)[entry]
        yield np.unique(left_owners[reached[entry]] * len(others) + right_owners[beside])


def _prefixes(ranks: Integers, owners: Integers, threshold: float) -> tuple[Integers, Integers]:
    """Return the rarest shingles of each text, as many as the threshold asks for, and whose they are."""
    order = np.lexsort((ranks, owners))
    ranks, owners = ranks[order], owners[order]
    sizes = np.bincount(owners)
    within = np.arange(len(owners)) - (np.cumsum(sizes) - sizes)[owners]
    keep = within < (sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1)[owners]
    return ranks[keep], owners[keep]
