"""What a key of the configuration may be, written where its type is: each is a dataclass's field."""

from dataclasses import field
from typing import Any


def limited(
    *, least: float | None = None, above: float | None = None, most: float | None = None, below: float | None = None
) -> Any:
    """Return a number within bounds; `above` and `below` exclude theirs, the others do not."""
    return field(metadata={"least": least, "above": above, "most": most, "below": below})


def one_of(*values: str) -> Any:
    """Return a text, or a list of at least one text, out of these."""
    return field(metadata={"values": values, "filled": True})


def any_of(*values: str) -> Any:
    """Return a list of texts out of these; it may be empty."""
    return field(metadata={"values": values})


def filled() -> Any:
    """Return a list with at least one entry."""
    return field(metadata={"filled": True})
