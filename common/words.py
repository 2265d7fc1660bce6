"""Counts and sizes as one says them."""

GIB = 2**30  # bytes


def counted(count: int, noun: str) -> str:
    """Return a count with what it is of.

    1 conversation, 1,200 conversations. For nouns whose plural ends in s alone.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def readable(text: str) -> str:
    """Return a text as UTF-8 can have it, with ? for halves of surrogate pairs."""
    return text.encode(errors="replace").decode()


def percent(part: float, whole: float) -> str:
    """Return a share as one reads it; what is there is never 0%."""
    share = part / whole if whole else 0.0
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"
