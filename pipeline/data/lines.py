"""What data files hold, by place: rows, and what cannot be read."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

KEPT = 1000  # characters of a bad line


class Row(NamedTuple):
    """What a file has at a place, and the split that the file says it belongs to."""

    line: int  # where it begins; in Parquet and Arrow the number of the row
    value: Any
    split: str | None = None


class BadLine(NamedTuple):
    """What cannot be read, from a line on."""

    line: int
    reason: str
    text: str  # its beginning


class SetAside(NamedTuple):
    """A row that is not to be taken, by what other rows say of it."""

    line: int
    reason: str
    value: object


Rows = Iterator[Row | BadLine]


def one_line(error: BaseException) -> str:
    """Return an error's words without their line breaks, and the beginning of long ones."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def is_utf8(text: str) -> bool:
    """Return False where bytes that are no UTF-8 stand in a text as halves of surrogate pairs."""
    return text.isascii() or not re.search("[\udc80-\udcff]", text)
