"""Texts of a grammar, drawn at random: what a model that knows nothing would write under it."""

import random
from collections.abc import Callable, Iterator

import numpy as np
from llguidance import LLMatcher

from llama.grammar.follow import LIMITS, Vocabulary, make_tokenizer
from llama.grammar.lark import Grammar

END = 256
BYTES = Vocabulary([bytes([byte]) for byte in range(255)] + [b"", b""], [END])
TOKENIZER = make_tokenizer(BYTES)


def matcher(grammar: Grammar) -> LLMatcher:
    """What follows texts of a grammar, byte by byte."""
    found = LLMatcher(TOKENIZER, grammar.text(), log_level=0, limits=LIMITS)
    assert not found.is_error(), found.get_error()
    return found


def reader(grammar: Grammar) -> Callable[[str], bool]:
    """What says whether a text is one of the grammar's."""
    following = matcher(grammar)

    def reads(text: str) -> bool:
        following.reset()
        taken = list(text.encode())
        return following.try_consume_tokens(taken) == len(taken) and following.is_accepting()

    return reads


def fits(grammar: Grammar, text: str) -> bool:
    """Whether a text is one of the grammar's."""
    return reader(grammar)(text)


def drawn(grammar: Grammar, count: int, longest: int = 2_000) -> Iterator[str]:
    """Texts of a grammar, byte by byte; those that grow too long are left out."""
    following, rng = matcher(grammar), random.Random(0)
    for _ in range(count):
        following.reset()
        text = bytearray()
        while len(text) < longest:
            if following.is_accepting() and (following.is_stopped() or rng.random() < 0.3):
                yield text.decode()
                break
            bits = np.frombuffer(following.compute_bitmask(), np.uint8)
            text.append(rng.choice(np.flatnonzero(np.unpackbits(bits, count=END, bitorder="little")).tolist()))
            assert following.consume_token(text[-1])
