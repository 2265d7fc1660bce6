"""Answers that are compared or judged, a conversation each: which of them stand together, and what they are called."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from common.words import counted


class Compared(NamedTuple):
    """The answers of a split, by their numbers from 1."""

    names: dict[int, str]  # as `pair 3, chosen`
    together: list[list[int]]  # the two of a pair, or one that is judged

    def beside(self, numbers: Sequence[int]) -> list[int]:
        """Return those with all that they are compared with, each once."""
        of = {number: answers for answers in self.together for number in answers}
        return list(dict.fromkeys(answer for number in numbers for answer in of[number]))

    def __str__(self) -> str:
        """Return how many there are of each kind."""
        pairs = sum(len(answers) > 1 for answers in self.together)
        good = sum(name.endswith("good") for name in self.names.values())
        bad = len(self.together) - pairs - good
        return f"{counted(pairs, 'pair')}, {good:,} good and {bad:,} bad answers"


def compared(comparisons: Sequence[int], good: Sequence[bool]) -> Compared:
    """Return what answers are to one another.

    Args:
        comparisons: of each answer the number, from 0, of the one that it belongs to.
        good: whether it is the better one, or judged as good.
    """
    together: defaultdict[int, list[int]] = defaultdict(list)
    for number, comparison in enumerate(comparisons, 1):
        together[comparison].append(number)
    names: dict[int, str] = {}
    for comparison, answers in together.items():
        kind, words = ("pair", ("rejected", "chosen")) if len(answers) > 1 else ("judgement", ("bad", "good"))
        names |= {number: f"{kind} {comparison + 1:,}, {words[good[number - 1]]}" for number in answers}
    return Compared(names, list(together.values()))
