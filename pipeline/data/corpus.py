"""The conversations of a run: their texts on disk, and in memory what the steps after reading know of them."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.formats import Messages
from pipeline.core.preferences import Comparison, good_answer, kind_of, told
from pipeline.data.message_schema import fields_of
from pipeline.data.near_duplicates import Integers, Shingles, Words, joined, shingle, taken
from pipeline.data.rows import Conversation
from pipeline.data.sources import Source
from pipeline.data.traits import hash_of, traits_of

NOTHING = 0  # the hash of a prompt that nobody asks


class Columns(NamedTuple):
    """Conversations of a batch of one source's rows, their traits beside one another."""

    source: str
    group: str  # the name that data.sources has for it
    splits: list[str | None]
    digests: list[bytes]
    folded: list[bytes]
    letters: list[bytes]
    texts: Words
    prompts: Words  # hashes; NOTHING where nobody asks
    asked: Words  # the different ones
    shingles: Shingles  # of these
    exchanges: Words
    exchange_counts: Integers
    wholes: Shingles  # of all texts of a conversation, if they are asked for
    sizes: Integers  # characters of all its folded texts
    lengths: Integers  # bytes of its line on disk
    apart: Integers  # the same of the preferences that are set apart, whose lines follow
    apart_digests: list[bytes]
    kinds: list[str]  # of comparisons; empty for a conversation
    fields: set[str]  # that some message of a conversation has
    compared_fields: set[str]  # that one of a comparison has


def columns_of(
    source: Source,
    conversations: Sequence[Conversation],
    lines: Sequence[bytes],
    apart: Sequence[bytes] = (),
    whole: bool = False,
) -> Columns:
    """Return the columns of conversations.

    Args:
        source: that they are of.
        conversations: of a batch.
        lines: what stands of each on disk.
        apart: what stands there of the preferences.
        whole: whether all texts are to be compared, and not prompts alone.
    """
    traits = [traits_of(conversation.messages) for conversation in conversations]
    asked = {hash_of([one.prompt]): one.prompt for one in traits if one.prompt}
    return Columns(
        source=source.name,
        group=source.group,
        splits=[conversation.split for conversation in conversations],
        digests=[one.digest for one in traits],
        folded=[one.folded for one in traits],
        letters=[one.letter for one in traits],
        texts=_hashes(one.text for one in traits),
        prompts=_hashes(hash_of([one.prompt]) if one.prompt else NOTHING for one in traits),
        asked=_hashes(asked),
        shingles=shingle(asked.values()),
        exchanges=_hashes(key for one in traits for key in one.exchanges),
        exchange_counts=_numbers(len(one.exchanges) for one in traits),
        wholes=shingle(one.whole for one in traits if whole),
        sizes=_numbers(len(one.whole) for one in traits),
        lengths=_numbers(map(len, lines)),
        apart=_numbers(map(len, apart)),
        apart_digests=[hashlib.sha256(line).digest() for line in apart],
        kinds=[kind_of(one.comparison) if one.comparison else "" for one in conversations],
        fields=fields_of(one.messages for one in conversations if not one.comparison),
        compared_fields=fields_of(one.messages for one in conversations if one.comparison),
    )


def line_of(row: Messages | Comparison) -> bytes:
    """Return a conversation, or a comparison, as it stands on disk."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


class Lines:
    """Lines of a file, by their numbers."""

    def __init__(self, file: Path, starts: Integers, lengths: Integers) -> None:
        """Take those that begin at `starts`, in bytes."""
        self._starts, self._lengths = starts, lengths
        self._file = file.open("rb")

    def __getitem__(self, number: int) -> bytes:
        # A mapping would count as memory of the process, and files beyond memory would push out what is needed.
        return os.pread(self._file.fileno(), int(self._lengths[number]), int(self._starts[number]))


class Corpus:
    """All conversations; each goes by its number, in the order of reading."""

    def __init__(self, columns: Sequence[Columns], file: Path) -> None:
        """Put batches one after another, as their lines stand in the file."""
        self.sources = [one.source for one in columns for _ in one.digests]
        self.groups = [one.group for one in columns for _ in one.digests]
        self.grouped = any(one.group for one in columns)
        self.kinds = [kind for one in columns for kind in one.kinds]  # of comparisons; empty for a conversation
        self.compared = np.array([bool(kind) for kind in self.kinds], np.bool_)
        self.splits = [split for one in columns for split in one.splits]
        self.digests = [digest for one in columns for digest in one.digests]
        self.folded = [digest for one in columns for digest in one.folded]
        self.letters = [digest for one in columns for digest in one.letters]
        self.texts = _concatenated(one.texts for one in columns)
        self.prompts = _concatenated(one.prompts for one in columns)
        self.exchanges = _concatenated(one.exchanges for one in columns)
        counts = _concatenated(one.exchange_counts for one in columns).astype(np.int64)
        self.exchange_owners = np.repeat(np.arange(len(counts)), counts)
        self.wholes = joined([one.wholes for one in columns])
        self.sizes = _concatenated(one.sizes for one in columns).astype(np.int64)
        self.fields = set[str]().union(*(one.fields for one in columns))
        self.compared_fields = {"weight"}.union(*(one.compared_fields for one in columns))
        # Each prompt once, in an order that does not depend on that of the rows.
        self.asked, first = np.unique(_concatenated(one.asked for one in columns), return_index=True)
        self.shingles = taken(joined([one.shingles for one in columns]), first)
        self.numbers: dict[int, int] = {}  # of rows with the digest of another
        # Conversations and preferences stand in turn in the file, those of a batch after another's.
        parts = [part for one in columns for part in (one.lengths, one.apart)]
        lengths = _concatenated(parts).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        is_apart = np.repeat(np.arange(len(parts)) % 2 == 1, _numbers(map(len, parts)))
        self._lines = Lines(file, starts[~is_apart], lengths[~is_apart])
        self._apart = Lines(file, starts[is_apart], lengths[is_apart])
        self.has_preferences = bool(is_apart.any())
        self._apart_digests = [digest for one in columns for digest in one.apart_digests]

    def __len__(self) -> int:
        return len(self.digests)

    def messages(self, rows: Iterable[int]) -> Iterator[Messages]:
        """Yield conversations from disk; of a comparison, all that it tells."""
        found = map(json.loads, map(self._lines.__getitem__, rows))
        return (row if isinstance(row, list) else told(row) for row in found)

    def answered(self, rows: Iterable[int]) -> Iterator[Messages]:
        """Yield conversations from disk; of a comparison, that with the good answer."""
        found = map(json.loads, map(self._lines.__getitem__, rows))
        return (row if isinstance(row, list) else good_answer(row) for row in found)

    def comparisons(self, rows: Iterable[int]) -> Iterator[Comparison]:
        """Yield comparisons from disk."""
        return map(json.loads, map(self._lines.__getitem__, rows))

    def strata(self) -> list[str]:
        """Return what there has to be some of in each split: a source's conversations, its pairs, its judgements."""
        return [f"{group} {kind}" for group, kind in zip(self.groups, self.kinds, strict=True)]

    def preferences(self) -> Iterator[bytes]:
        """Yield the different preferences that are set apart, a line of JSON each, in the order of their digests."""
        first = {digest: number for number, digest in reversed(list(enumerate(self._apart_digests)))}
        return (self._apart[first[digest]] for digest in sorted(first))

    def conversations(self, rows: Sequence[int]) -> list[Conversation]:
        """Return conversations from disk, with where they are from."""
        told = ((self.sources[row], self.splits[row], self.groups[row]) for row in rows)
        return [Conversation(messages, *where) for messages, where in zip(self.messages(rows), told, strict=True)]

    def name(self, row: int) -> str:
        """Return what a row is called wherever it stands: its digest, and a number where rows of one are kept."""
        number = self.numbers.get(row)
        return self.digests[row].hex() + (f"-{number}" if number else "")

    def prompt_numbers(self, rows: Integers) -> Integers:
        """Return the places of the rows' prompts in `asked`, -1 where there is none."""
        places = np.searchsorted(self.asked, self.prompts[rows])
        return np.where(self.prompts[rows] == NOTHING, -1, places)


def _hashes(values: Iterable[int]) -> Words:
    return np.fromiter(values, np.uint64)


def _numbers(values: Iterable[int]) -> Integers:
    return np.fromiter(values, np.int64)


def _concatenated(arrays: Iterable[Words | Integers]) -> Words:
    return np.concatenate([np.empty(0, np.uint64), *(array.astype(np.uint64) for array in arrays)])
