"""Texts of a grammar, drawn at random: what a model that knows nothing would write under it."""

import random
from collections.abc import Callable, Iterator

from llama.grammar.automaton import DEAD, Automaton
from llama.grammar.expressions import Grammar


def reader(grammar: Grammar) -> Callable[[str], bool]:
    """What says whether a text is one of the grammar's."""
    automaton = Automaton(grammar)

    def reads(text: str) -> bool:
        automaton.allow()
        state = automaton.after(automaton.start, text.encode())
        return state != DEAD and automaton.is_end(state)

    return reads


def fits(grammar: Grammar, text: str) -> bool:
    """Whether a text is one of the grammar's."""
    return reader(grammar)(text)


def drawn(grammar: Grammar, count: int, longest: int = 2_000) -> Iterator[str]:
    """Texts of a grammar, byte by byte; those that grow too long are left out."""
    automaton, rng = Automaton(grammar), random.Random(0)
    for _ in range(count):
        state, text = automaton.start, bytearray()
        while len(text) < longest:
            if automaton.is_end(state) and (not automaton.goes_on(state) or rng.random() < 0.3):
                yield text.decode()
                break
            automaton.allow()
            automaton.work_out([state])
            text.append(rng.choice([byte for byte in range(256) if automaton.ways[state, byte] != DEAD]))
            state = int(automaton.ways[state, text[-1]])
