"""Which rows are taken of how many there are, and how often each stands in train: seeded, by what the rows say.

Rows are known by their digests, so that neither the order of files nor that of rows counts, and rows that come to a set
move few of those that were taken.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import floor

import numpy as np

Numbers = list[int]  # of rows, from 0


def sample(
    digests: Sequence[str], sources: Sequence[str], caps: Mapping[str, int | None], most: int | None, seed: int
) -> Numbers:
    """Return the numbers of the rows that are taken, in their order.

    Args:
        digests: of the rows.
        sources: the name of each row's.
        caps: how many rows are taken of a source at most; null or no entry takes all.
        most: how many are taken of all that is left.
        seed: of the draw.
    """
    kept = list(range(len(digests)))
    if any(cap is not None for cap in caps.values()):
        by_source = _by_source(sources)
        capped = {name: _drawn(by_source[name], digests, "cap", seed)[:cap] for name, cap in caps.items() if cap}
        kept = sorted(number for name in by_source for number in capped.get(name, by_source[name]))
    return kept if most is None or len(kept) <= most else sorted(_drawn(kept, digests, "most", seed)[:most])


def copies(digests: Sequence[str], sources: Sequence[str], weights: Mapping[str, float], seed: int) -> Numbers:
    """Return how often each row stands in train: 2 is twice, 2.5 three times for half of them, 0.5 leaves half out.

    Args:
        digests: of the rows of train.
        sources: the name of each row's.
        weights: by source.
        seed: of the draw.
    """
    counts = [1] * len(digests)
    by_source = _by_source(sources)
    for source, weight in weights.items():
        numbers, whole = by_source[source], floor(weight)
        once_more = round((weight - whole) * len(numbers))
        for number in numbers:
            counts[number] = whole
        for number in _drawn(numbers, digests, "weight", seed)[:once_more] if once_more else ():
            counts[number] += 1
    return counts


def copy_keys(digest: str, count: int) -> list[str]:
    """Return a key for each copy of a row, by which it has a place of its own in a shuffled order."""
    return [digest if copy == 0 else f"{digest}#{copy + 1}" for copy in range(count)]


def _by_source(sources: Sequence[str]) -> dict[str, Numbers]:
    found: dict[str, Numbers] = defaultdict(list)
    for number, source in enumerate(sources):
        found[source].append(number)
    return found


def _drawn(numbers: Numbers, digests: Sequence[str], purpose: str, seed: int) -> Numbers:
    """Return rows in a seeded order, another for each purpose, so that one draw does not favour what another has."""
    start = hashlib.blake2b(f"{purpose} {seed} ".encode(), digest_size=8)

    def place(number: int) -> bytes:
        hashed = start.copy()
        hashed.update(digests[number].encode())
        return hashed.digest()

    places = np.frombuffer(b"".join(map(place, numbers)), ">u8")
    drawn: Numbers = np.array(numbers, np.int64)[np.argsort(places, kind="stable")].tolist()
    return drawn
