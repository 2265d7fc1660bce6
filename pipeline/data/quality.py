"""How good a text looks, from 0 to 1, by cheap signs: those of C4 and Gopher (Raffel et al. 2020, Rae et al. 2021).

The score is the product of what each sign leaves of 1. A sign takes nothing within the range that ordinary texts have,
and from there on more and more, up to its weight. It tells debris (menus, lists of links, keyboards, hashes, shouting)
from sentences; it does not tell a good answer from a bad one, nor truth from error. Code and short answers are not
judged.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

JUDGED = 2_000  # characters
FEW = 20  # words; a shorter text has no statistics, and is 1
CODE = re.compile(r"```.*?(```|\Z)", re.DOTALL)
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
SYMBOL = re.compile(r"[^\w\s]")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces between words
ENDS = tuple(".!?:;\"'\u201d\u2019)]}|`*>\u2026")


class Parts(NamedTuple):
    """A text taken apart."""

    text: str
    words: list[str]  # between spaces
    letters: list[str]  # words that have some
    lines: list[str]  # that are not empty


class Sign(NamedTuple):
    """What is measured of a text, the value from which it is held against it, the one where that is whole, how much."""

    name: str
    measure: Callable[[Parts], float]
    fine: float
    bad: float
    weight: float

    def left(self, parts: Parts) -> float:
        """Return what the sign leaves of 1."""
        beyond = (self.measure(parts) - self.fine) / (self.bad - self.fine)
        return 1 - self.weight * min(max(beyond, 0.0), 1.0)


def quality(text: str) -> float:
    """Return the score of a text, by its first characters."""
    prose = CODE.sub(" ", text)[:JUDGED]
    words = prose.split()
    if len(words) < FEW or UNSPACED.search(prose):
        return 1.0
    lines = [line for line in map(str.strip, prose.splitlines()) if line]
    parts = Parts(prose, words, WORD.findall(prose), lines)
    score = 1.0
    for sign in SIGNS:
        score *= sign.left(parts)
    return round(score, 3)


def symbols(parts: Parts) -> float:
    """Return the share of signs that are no letters, digits or spaces."""
    return len(SYMBOL.findall(parts.text)) / len(parts.text)


def wordless(parts: Parts) -> float:
    """Return the share of words without a letter."""
    return max(1 - len(parts.letters) / len(parts.words), 0.0)


def word_length(parts: Parts) -> float:
    """Return the mean length of the words."""
    return sum(map(len, parts.words)) / len(parts.words)


def shouting(parts: Parts) -> float:
    """Return the share of words in capitals."""
    return sum(map(str.isupper, parts.letters)) / len(parts.letters) if parts.letters else 0.0


def repeated_lines(parts: Parts) -> float:
    """Return the share of characters in lines that stand there before."""
    total = sum(map(len, parts.lines))
    return 1 - sum(map(len, set(parts.lines))) / total


def commonest(parts: Parts) -> float:
    """Return the share of the word that stands most often."""
    return Counter(map(str.lower, parts.words)).most_common(1)[0][1] / len(parts.words)


def loose_lines(parts: Parts) -> float:
    """Return the share of lines that end as no sentence does, of texts with several."""
    return sum(not line.endswith(ENDS) for line in parts.lines) / len(parts.lines) if len(parts.lines) > 5 else 0.0


SIGNS = (
    Sign("symbols", symbols, 0.2, 0.5, 0.8),
    Sign("words without letters", wordless, 0.5, 0.9, 0.5),
    Sign("long words", word_length, 9, 16, 0.8),
    Sign("short words", word_length, 2.5, 1.2, 0.8),
    Sign("capitals", shouting, 0.3, 0.9, 0.8),
    Sign("repeated lines", repeated_lines, 0.2, 0.7, 0.8),
    Sign("one word again and again", commonest, 0.2, 0.6, 0.8),
    Sign("lines without an end", loose_lines, 0.7, 1.0, 0.3),
)
