"""Texts that are nearly the same: word 3-grams that MinHash finds candidates by, each of which is then compared.

A pair counts whose sets of 3-grams overlap by a threshold (Jaccard); what is found is so, and of those that there are
`benchmarks/prepare.py` says how many are found.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

WORDS = 3  # of a shingle
PERMUTATIONS = 128
TEXTS = 1_000  # whose words are held at once
BITS = np.uint64(54)  # of a hash; the other ten number TEXTS
CHUNK = 4_000_000  # entries held at once while pairs are formed and compared
BUCKET = 40  # rows of a bucket that are compared each with each
FEW = 3  # of a larger one, each is compared with so many at its beginning, and so many beside it
MISSED = 0.01  # at most, of pairs right at the threshold
WITHOUT_SPACES = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")  # kana and Han: each a word
MIX = 0x9E3779B97F4A7C15  # odd, and as if drawn

Hashes: TypeAlias = npt.NDArray[np.uint64]
Integers: TypeAlias = npt.NDArray[np.int64]


class Shingles(NamedTuple):
    """The hashes of each text's 3-grams, sorted and each once: of text n from `starts[n]` to `starts[n + 1]`."""

    hashes: Hashes
    starts: Integers

    @property
    def sizes(self) -> Integers:
        """How many each text has."""
        return np.diff(self.starts)

    def of(self, rows: Integers) -> tuple[Hashes, Integers]:
        """Return the hashes of some texts, one after another, and beside each which of `rows` it is of."""
        sizes = self.sizes[rows]
        owners = np.repeat(np.arange(len(rows)), sizes)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.hashes[self.starts[rows][owners] + within], owners


class _WordHashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        found = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        self[word] = found
        return found


def shingle(texts: Iterable[str], length: int = WORDS) -> Shingles:
    """Return the runs of so many words of folded texts; a text of fewer is one shingle, and an empty one has none."""
    known, waiting = _WordHashes(), iter(texts)
    found, sizes = [np.empty(0, np.uint64)], [np.zeros(1, np.int64)]
    while words := [_words(text) for text in islice(waiting, TEXTS)]:
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        hashes = np.fromiter(map(known.__getitem__, chain.from_iterable(words)), np.uint64, int(lengths.sum()))
        grams, owners = _grams(hashes, lengths, length)
        found.append(grams)
        sizes.append(np.bincount(owners, minlength=len(words)))
    return Shingles(np.concatenate(found), np.cumsum(np.concatenate(sizes)))


def _words(text: str) -> list[str]:
    return text.split() if text.isascii() else WITHOUT_SPACES.sub(r" \1 ", text).split()


def _grams(words: Hashes, lengths: Integers, length: int) -> tuple[Hashes, Integers]:
    """Return the grams of texts whose words stand one after another, sorted by text and each once, and whose it is."""
    counts = np.maximum(lengths - length + 1, np.minimum(lengths, 1))
    owners = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(lengths)
    places = (ends - lengths)[owners] + np.arange(len(owners)) - (np.cumsum(counts) - counts)[owners]
    grams = np.zeros(len(owners), np.uint64)
    for offset in range(length):
        factor = np.uint64(MIX * (2 * offset + 1) % 2**64)
        here = places + offset < ends[owners]
        mixed = (grams[here] ^ (grams[here] >> np.uint64(29))) * factor
        grams[here] = mixed + words[places[here] + offset] * factor
    # Both in one number, which sorts several times as fast as two, and as what np.unique does.
    both = np.sort((owners.astype(np.uint64) << BITS) | (grams >> (np.uint64(64) - BITS)))
    both = both[np.flatnonzero(np.diff(both, prepend=~both[:1]))]
    return both & ((np.uint64(1) << BITS) - np.uint64(1)), (both >> BITS).astype(np.int64)


def near_pairs(shingles: Shingles, threshold: float) -> Integers:
    """Return pairs of texts that overlap by the threshold, the lesser number first.

    Of texts that are alike in great number, each is compared with some, which suffices to tie them together.
    """
    filled = np.flatnonzero(shingles.sizes)
    signatures = _signatures(shingles, filled)
    seen = found = np.empty(0, np.int64)
    for band in _bands(threshold):
        codes = np.setdiff1d(_bucket_pairs(signatures[:, band], filled, len(shingles.sizes)), seen)
        seen = np.union1d(seen, codes)
        pairs = _pairs(codes, len(shingles.sizes))
        found = np.union1d(found, codes[overlaps(shingles, pairs) >= threshold])
    return _pairs(found, len(shingles.sizes))


def overlaps(shingles: Shingles, pairs: Integers) -> npt.NDArray[np.float64]:
    """Return the exact Jaccard overlap of each pair."""
    total = shingles.sizes[pairs].sum(axis=1)
    shared = np.zeros(len(pairs), np.int64)
    for part in _parts(total):
        hashes, owners = zip(*(shingles.of(pairs[part, side]) for side in (0, 1)), strict=True)
        keys = np.concatenate(hashes) + np.concatenate(owners).astype(np.uint64) * np.uint64(MIX)
        owner_by_key = np.argsort(keys, kind="stable")
        twice = keys[owner_by_key[1:]] == keys[owner_by_key[:-1]]
        shared[part] = np.bincount(np.concatenate(owners)[owner_by_key[1:][twice]], minlength=part.stop - part.start)
    return shared / np.maximum(total - shared, 1)


def _signatures(shingles: Shingles, rows: Integers) -> npt.NDArray[np.uint32]:
    from rensa import RMinHash

    found = [np.empty((0, PERMUTATIONS), np.uint32)]
    for first in range(0, len(rows), 10_000):  # it gives lists
        hashes, owners = shingles.of(rows[first : first + 10_000])
        count = len(rows[first : first + 10_000])
        starts = np.searchsorted(owners, np.arange(count + 1)).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts, num_perm=PERMUTATIONS, seed=0)
        found.append(np.array(matrix.to_rows(), np.uint32))
    return np.concatenate(found)


def _bands(threshold: float) -> Iterator[slice]:
    """Yield the columns of each band: the widest bands of which one agrees for nearly all pairs at the threshold."""
    width = max(w for w in range(1, PERMUTATIONS + 1) if (1 - threshold**w) ** (PERMUTATIONS // w) <= MISSED or w == 1)
    for first in range(0, PERMUTATIONS - width + 1, width):
        yield slice(first, first + width)


def _bucket_pairs(columns: npt.NDArray[np.uint32], rows: Integers, count: int) -> Integers:
    """Return the codes of pairs of rows that agree in the columns."""
    keys = np.ascontiguousarray(columns).view(np.dtype((np.void, columns.shape[1] * 4))).ravel()
    _, numbers, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    several = np.flatnonzero(sizes[numbers] > 1)
    order = several[np.argsort(numbers[several], kind="stable")]
    sizes = sizes[sizes > 1]
    starts = np.cumsum(sizes) - sizes
    first_of, large = np.repeat(starts, sizes), np.repeat(sizes > BUCKET, sizes)
    places = np.arange(len(order))
    codes = [np.empty(0, np.int64)]
    for back in range(1, BUCKET):
        for other in (places - back, first_of + back - 1):
            pair = np.flatnonzero((other >= first_of) & (other < places) & (~large | (back <= FEW)))
            one, two = rows[order[other[pair]]], rows[order[pair]]
            codes.append(np.minimum(one, two) * count + np.maximum(one, two))
    return np.unique(np.concatenate(codes))


def _pairs(codes: Integers, count: int) -> Integers:
    return np.stack(np.divmod(codes, max(count, 1)), axis=1).astype(np.int64)


def _parts(sizes: Integers) -> Iterator[slice]:
    """Yield slices of pairs whose sizes come to no more than a chunk, but for one that is larger by itself."""
    first, ends = 0, np.cumsum(sizes)
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + CHUNK, side="right")), first + 1)
        yield slice(first, last)
        first = last
