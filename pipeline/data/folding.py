"""Texts as a reader hears them: without case, punctuation, spacing, and the ways that Unicode has to write the same.

What changes a meaning stays: the signs of arithmetic and of programming languages, and points within numbers and names.
"""

import sys
import unicodedata
from functools import cache

MEANING = frozenset("#%&*/@\\-")  # of what Unicode calls punctuation; C and C# differ, 2 * 3 and 2 - 3
INNER = ".,:"  # which end sentences, and stand in 1,000.5 and 10:30


@cache
def _spaces() -> dict[int, str]:
    every = (chr(code) for code in range(sys.maxunicode + 1))
    dropped = {sign for sign in every if unicodedata.category(sign)[0] == "P"} - MEANING - set(INNER)
    return {ord(sign): " " for sign in dropped}


def fold(text: str) -> str:
    """Return a text as it is compared: NFKC, case folded, no punctuation, each run of white space as one space.

    Of punctuation alone, it stays.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    spaced = text.casefold().replace("!=", "≠").translate(_spaces()).replace("..", " ")
    folded = " ".join(spaced.split()) + " "
    for sign in INNER * 2:  # a second time, since one may stand before another; no regular expression is as fast
        folded = folded.replace(f"{sign} ", " ")
    return " ".join(folded.split()) or " ".join(text.split())
