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

FEW = 20  # words; a shorter text has no statistics, and is 1
CODE = re.compile(r"```.*?(```|\Z)", re.DOTALL)
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # scripts without spaces between words
ENDS = tuple(".!?:;\"'\u201d\u2019)]}|`*>\u2026")


class Sign(NamedTuple):
    """What is measured of a text, the value from which it is held against it, the one where that is whole, how much."""

    name: str
    measure: Callable[[str, list[str]], float]
    fine: float
    bad: float
    weight: float

    def left(self, text: str, words: list[str]) -> float:
        """Return what the sign leaves of 1."""
        beyond = (self.measure(text, words) - self.fine) / (self.bad - self.fine)
        return 1 - self.weight * min(max(beyond, 0.0), 1.0)


def quality(text: str) -> float:
    """Return the score of a text."""
    prose = CODE.sub(" ", text)
    words = prose.split()
    if len(words) < FEW or UNSPACED.search(prose[:1000]):
        return 1.0
    score = 1.0
    for sign in SIGNS:
        score *= sign.left(prose, words)
    return round(score, 3)


def letters(text: str, words: list[str]) -> float:
    """Return the share of letters, digits and spaces among the characters."""
    return sum(character.isalnum() or character.isspace() for character in text) / len(text)


def wordless(text: str, words: list[str]) -> float:
    """Return the share of words without a letter."""
    return 1 - len(WORD.findall(text)) / len(words)


def word_length(text: str, words: list[str]) -> float:
    """Return the mean length of the words."""
    return sum(map(len, words)) / len(words)


def shouting(text: str, words: list[str]) -> float:
    """Return the share of capitals among the letters."""
    found = [character for character in text if character.isalpha()]
    return sum(map(str.isupper, found)) / len(found) if found else 0.0


def repeated_lines(text: str, words: list[str]) -> float:
    """Return the share of characters in lines that stand there before."""
    lines = Counter(line for line in map(str.strip, text.splitlines()) if line)
    total = sum(len(line) * count for line, count in lines.items())
    return sum(len(line) * (count - 1) for line, count in lines.items()) / total if total else 0.0


def commonest(text: str, words: list[str]) -> float:
    """Return the share of the word that stands most often."""
    return Counter(map(str.casefold, words)).most_common(1)[0][1] / len(words)


def loose_lines(text: str, words: list[str]) -> float:
    """Return the share of lines that end as no sentence does, of texts with several."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    return sum(not line.endswith(ENDS) for line in lines) / len(lines) if len(lines) > 5 else 0.0


SIGNS = (
    Sign("symbols", letters, 0.8, 0.5, 0.8),
    Sign("words without letters", wordless, 0.5, 0.9, 0.5),
    Sign("long words", word_length, 9, 16, 0.8),
    Sign("short words", word_length, 2.5, 1.2, 0.8),
    Sign("capitals", shouting, 0.3, 0.8, 0.6),
    Sign("repeated lines", repeated_lines, 0.2, 0.7, 0.8),
    Sign("one word again and again", commonest, 0.2, 0.6, 0.8),
    Sign("lines without an end", loose_lines, 0.7, 1.0, 0.3),
)
