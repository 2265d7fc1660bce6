"""Texts that are nearly the same: word 3-grams that MinHash finds candidates by, each of which is then compared.

A pair counts whose sets of 3-grams overlap by a threshold (Jaccard); what is found is so, and of those that there are
`benchmarks/prepare.py` says how many are found.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

WORDS = 3  # of a shingle
PERMUTATIONS, FEW_PERMUTATIONS, HIGH = 128, 64, 0.7  # the fewer suffice from a high threshold on
TEXTS = 1_000  # whose words are held at once
BITS = np.uint64(32)  # of a hash
CHUNK = 4_000_000  # entries held at once while pairs are formed and compared
BUCKET = 40  # rows of a bucket that are compared each with each
FEW = 3  # of a larger one, each is compared with so many at its beginning, and so many beside it
MISSED = 0.01  # at most, of pairs right at the threshold
WITHOUT_SPACES = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff])")  # kana and Han: each a word
END = "\n"  # of a text; folded ones have none
MIX = 0x9E3779B97F4A7C15  # odd, and as if drawn
# Of a byte's place in its word, odd and drawn; beyond them they begin anew.
FACTORS = np.random.default_rng(0).integers(1, 2**63, 64, np.uint64) * np.uint64(2) + np.uint64(1)

Hashes: TypeAlias = npt.NDArray[np.uint32]
Words: TypeAlias = npt.NDArray[np.uint64]
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


def shingle(texts: Iterable[str], length: int = WORDS) -> Shingles:
    """Return the runs of so many words of folded texts; a text of fewer is one shingle, and an empty one has none."""
    waiting = iter(texts)
    found, sizes = [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
    while some := list(islice(waiting, TEXTS)):
        grams, owners = _grams(*_word_hashes(some), length)
        found.append(grams)
        sizes.append(np.bincount(owners, minlength=len(some)))
    return Shingles(np.concatenate(found), np.cumsum(np.concatenate(sizes)))


def joined(parts: Sequence[Shingles]) -> Shingles:
    """Return shingles one after another."""
    sizes = np.concatenate([np.zeros(1, np.int64), *(part.sizes for part in parts)])
    return Shingles(np.concatenate([np.empty(0, np.uint32), *(part.hashes for part in parts)]), np.cumsum(sizes))


def taken(shingles: Shingles, rows: Integers) -> Shingles:
    """Return the shingles of some texts."""
    hashes = [np.empty(0, np.uint32), *(shingles.of(some)[0] for some in chunks(shingles, rows))]
    return Shingles(np.concatenate(hashes), np.r_[0, np.cumsum(shingles.sizes[rows])])


def chunks(shingles: Shingles, rows: Integers) -> Iterator[Integers]:
    """Return the rows in parts whose shingles come to no more than a chunk, but for one that is larger by itself."""
    return (rows[part] for part in _parts(shingles.sizes[rows]))


def _word_hashes(texts: list[str]) -> tuple[Words, Integers]:
    """Return the hash of each word, those of a text after another's, and how many each text has.

    A hash is the sum of a word's bytes, each times an odd number of its place in the word: multilinear hashing (Lemire
    and Kaser 2014), which needs no word by itself.
    """
    spaced = (text if text.isascii() else WITHOUT_SPACES.sub(r" \1 ", text) for text in texts)
    signs = np.frombuffer(f" {END.join(spaced)}{END}".encode(), np.uint8)
    inside = signs > ord(" ")
    begins = np.flatnonzero(inside[1:] > inside[:-1]) + 1
    ends = np.searchsorted(begins, np.flatnonzero(signs == ord(END)))
    if not len(begins):
        return np.empty(0, np.uint64), np.zeros(len(texts), np.int64)
    signs, inside = signs[begins[0] :], inside[begins[0] :]
    begins -= begins[0]
    within = np.arange(len(signs), dtype=np.int32) - np.repeat(
        begins.astype(np.int32), np.diff(begins, append=len(signs))
    )
    weighed = FACTORS[within & (len(FACTORS) - 1)] * (signs * inside)
    return np.add.reduceat(weighed, begins) * np.uint64(MIX), np.diff(ends, prepend=0)


def _grams(words: Words, lengths: Integers, length: int) -> tuple[Hashes, Integers]:
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
    return both.astype(np.uint32), (both >> BITS).astype(np.int64)


def near_pairs(shingles: Shingles, threshold: float) -> Integers:
    """Return pairs of texts that overlap by the threshold, the lesser number first.

    Of texts that are alike in great number, each is compared with some, which suffices to tie them together.
    """
    filled, bands = np.flatnonzero(shingles.sizes), _bands(threshold)
    signatures = _signatures(shingles, filled, bands[-1].stop)
    seen = found = np.empty(0, np.int64)
    for band in bands:
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


def _signatures(shingles: Shingles, rows: Integers, permutations: int) -> npt.NDArray[np.uint32]:
    from rensa import RMinHash

    found = [np.empty((0, permutations), np.uint32)]
    for first in range(0, len(rows), 10_000):  # it gives lists
        some = rows[first : first + 10_000]
        hashes, _ = shingles.of(some)
        starts = np.concatenate([[0], np.cumsum(shingles.sizes[some])]).astype(np.uint64)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes.astype(np.uint64), starts, num_perm=permutations, seed=0
        )
        found.append(np.array(matrix.to_rows(), np.uint32))
    return np.concatenate(found)


def _bands(threshold: float) -> list[slice]:
    """Return the columns of each band: the widest bands of which one agrees for nearly all pairs at the threshold."""
    permutations = FEW_PERMUTATIONS if threshold >= HIGH else PERMUTATIONS
    widths = range(1, permutations + 1)
    width = max(w for w in widths if (1 - threshold**w) ** (permutations // w) <= MISSED or w == 1)
    return [slice(first, first + width) for first in range(0, permutations - width + 1, width)]


def _bucket_pairs(columns: npt.NDArray[np.uint32], rows: Integers, count: int) -> Integers:
    """Return the codes of pairs of rows that agree in the columns."""
    factors = FACTORS[: columns.shape[1]]
    keys = (columns * factors).sum(axis=1, dtype=np.uint64)
    by_key = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[by_key], prepend=~keys[by_key[:1]]))
    sizes = np.diff(starts, append=len(keys))
    order = by_key[np.repeat(sizes > 1, sizes)]
    sizes = sizes[sizes > 1]
    starts = np.cumsum(sizes) - sizes
    first_of, large = np.repeat(starts, sizes), np.repeat(sizes > BUCKET, sizes)
    places = np.arange(len(order))
    codes = [np.empty(0, np.int64)]
    for back in range(1, min(BUCKET, int(sizes.max(initial=0)))):
        for other in (places - back, first_of + back - 1):
            pair = np.flatnonzero((other >= first_of) & (other < places) & (~large | (back <= FEW)))
            one, two = rows[order[other[pair]]], rows[order[pair]]
            codes.append(np.minimum(one, two) * count + np.maximum(one, two))
    return np.unique(np.concatenate(codes))


def _pairs(codes: Integers, count: int) -> Integers:
    return np.stack(np.divmod(codes, max(count, 1)), axis=1).astype(np.int64)


def _parts(sizes: Integers) -> Iterator[slice]:
    """Yield slices of what comes to no more than a chunk, but for one that is larger by itself."""
    first, ends = 0, np.cumsum(sizes)
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + CHUNK, side="right")), first + 1)
        yield slice(first, last)
        first = last
