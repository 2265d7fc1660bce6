"""Counts and sizes as one says them."""

GIB = 2**30  # bytes


def counted(count: int, noun: str) -> str:
    """Return a count with what it is of.

    1 conversation, 1,200 conversations. For nouns whose plural ends in s alone.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
