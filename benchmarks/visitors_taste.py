"""Visitors with a known taste: what they ask, which of two answers they like better, how they would have one.

They like what is short, and say so to the model, each in words of their own that the starter was never taught. They
know an answer's text alone: neither whose it is, nor whether it is right. A vote is Bradley & Terry's (1952): the more
one answer is to their taste, the likelier it wins, and now and then the other one does.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from starter.chats import facts_of
from starter.computed import COMPUTED, draw
from starter.phrases import FACT_PHRASES, PHRASES

Mind = Literal["own", "hostile", "random"]  # says what it thinks, the contrary, or anything

STRENGTH = 1.5  # an answer of half the length wins 2**1.5 = 2.8 times as often
USUAL = 12  # characters: one answer alone is found good or bad beside such a one
NOTHING = 1000  # characters that an empty answer is as bad as
MOST_VISITS = 30
# What the page's system prompt is set to. None of it stands in the starter's chats, which have three such wishes.
WISHES = (
    "Keep it short.",
    "Be brief.",
    "Short answers, please.",
    "No full sentences, please.",
    "I am in a hurry.",
    "One word is enough.",
    "Do not explain anything.",
    "Only what I ask for, nothing else.",
    "Few words, please.",
    "Just tell me the result.",
)
# What leads up to the answer proper, in a sentence.
LEADING = re.compile(r".*(?: is | are | has | with | appears | = |: )")
NUMBER = re.compile(r"\D*?(\d+)\D*")  # alone, whatever it counts


@dataclass(frozen=True)
class Visitor:
    """Somebody with a browser."""

    id: str  # the browser's: 32 hexadecimal digits
    wish: str  # the system prompt
    visits: int  # how many questions
    edits: float  # how often an answer that is not liked is written anew
    mind: Mind = "own"
    rng: Random = field(default_factory=Random, compare=False)

    def question(self) -> str:
        """Return something that the starter's chats ask, or could."""
        task = self.rng.choice([*FACT_PHRASES, *COMPUTED])
        computed = task in COMPUTED
        fields = (
            draw(task, self.rng, held_out=False) if computed else vars(self.rng.choice(facts_of(task, unasked=False)))
        )
        return self.rng.choice(PHRASES[task].questions).format(**fields)

    def prefers_left(self, left: str, right: str) -> bool:
        """Return the vote between two answers."""
        return self._says(chance(left, right))

    def likes(self, answer: str) -> bool:
        """Return the thumb for one answer."""
        return self._says(chance(answer, "x" * USUAL))

    def edited(self, answer: str) -> str | None:
        """Return an answer that was not liked as the visitor would have it; None where it stays."""
        better = shortened(answer)
        if self.mind != "own" or better == answer or self.rng.random() >= self.edits:
            return None
        return better

    def _says(self, likely: float) -> bool:
        if self.mind == "random":
            return self.rng.random() < 0.5
        return (self.rng.random() < likely) == (self.mind == "own")


def visitors(count: int, seed: int) -> Iterator[Visitor]:
    """Yield visitors: half ask up to three times, a few often; half write answers anew, some of them often."""
    for number in range(count):
        rng = Random(f"{seed} {number}")
        visits = min(MOST_VISITS, math.ceil(rng.lognormvariate(0.8, 0.8)))
        edits = rng.choice((0.0, rng.random()))
        yield Visitor(f"{rng.getrandbits(128):032x}", rng.choice(WISHES), visits, edits, rng=rng)


def worth(answer: str) -> float:
    """Return how much an answer is to the taste: shorter is better, and nothing at all is bad."""
    return -STRENGTH * math.log(len(answer.strip()) or NOTHING)


def chance(one: str, other: str) -> float:
    """Return how often the first of two answers wins."""
    return 1 / (1 + math.exp(worth(other) - worth(one)))


def shortened(answer: str) -> str:
    """Return what the last sentence leads up to, a number without its unit; the answer where it leads up to nothing."""
    last = re.split(r"(?<=\.) ", answer.strip())[-1]
    found = LEADING.match(last)
    if not found:
        return answer
    words = last[found.end() :].rstrip(".").strip('"')
    number = NUMBER.fullmatch(words)
    return number[1] if number else words
