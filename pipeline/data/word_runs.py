"""How much of a text has been said before: runs of words, which training data and replies are both judged by."""

from collections.abc import Sequence

REPEATED = 4  # words in a row that count as repetition (rep-4 of Welleck et al. 2020)


def runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Return the runs of so many words, one from each word on that has as many behind it."""
    return list(zip(*(words[start:] for start in range(length)), strict=False))


def distinct(found: Sequence[tuple[str, ...]]) -> float:
    """Return the share of different ones among runs; 0 where there are none."""
    return len(set(found)) / len(found) if found else 0.0
