"""Texts as a reader hears them: without case, punctuation, spacing, and the ways that Unicode has to write the same.

What changes a meaning stays: the signs of arithmetic and of programming languages, and points within numbers and names.
Texts of a whole data set go through here, so ASCII goes by tables of bytes, and runs of spaces are closed by replacing
two by one, which is ten times as fast as taking a text apart into words.
"""

import sys
import unicodedata
from functools import cache

MEANING = frozenset("#%&*/@\\-")  # of what Unicode calls punctuation; C and C# differ, 2 * 3 and 2 - 3
INNER = ",:."  # which end sentences, and stand in 1,000.5 and 10:30
ASCII = bytes(range(128))


def fold(text: str) -> str:
    """Return a text as it is compared: NFKC, case folded, no punctuation, each run of white space as one space.

    Of punctuation alone, it stays.
    """
    heard = text if text.isascii() else _plain(unicodedata.normalize("NFKC", text).casefold())
    heard = heard.replace("!=", "≠").encode().translate(_folded_bytes()).decode().replace("..", " ") + " "
    for sign in INNER:
        heard = heard.replace(f"{sign} ", " ")
    return _closed(heard) or squeeze(text)


def squeeze(text: str) -> str:
    """Return a text in NFC with each run of white space as one space, and none at its ends."""
    if not text.isascii():
        return " ".join(unicodedata.normalize("NFC", text).split())
    return _closed(text.encode().translate(_spaced_bytes()).decode())


def _closed(text: str) -> str:
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")


def _plain(text: str) -> str:
    """Return a text with spaces for the signs beyond ASCII that are not heard."""
    for sign in _unheard().intersection(text.encode().translate(None, ASCII).decode()):
        text = text.replace(sign, " ")
    return text


def _is_unheard(sign: str) -> bool:
    dropped = unicodedata.category(sign)[0] == "P" and sign not in MEANING and sign not in INNER
    return dropped or sign.isspace()


@cache
def _unheard() -> frozenset[str]:
    return frozenset(filter(_is_unheard, map(chr, range(128, sys.maxunicode + 1))))


@cache
def _folded_bytes() -> bytes:
    """Return what each byte of UTF-8 becomes: small letters and spaces of ASCII, all others themselves."""
    return bytes(ord(" ") if _is_unheard(chr(byte)) else ord(chr(byte).lower()) for byte in ASCII) + bytes(
        range(128, 256)
    )


@cache
def _spaced_bytes() -> bytes:
    return bytes(ord(" ") if chr(byte).isspace() else byte for byte in range(256))
