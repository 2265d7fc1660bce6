"""Which of a model's tokens an answer may go on with, so that its text is of a form."""

from collections.abc import Collection, Iterable

import numpy as np

from llama.errors import RequestError
from llama.grammar.automaton import DEAD, Automaton

KEPT = 64  # states of a text whose tokens are remembered: one byte for each token there is


class Pieces:
    """The bytes of a vocabulary's tokens as a trie, level by level: what several begin with is read once."""

    def __init__(self, pieces: Iterable[bytes], ends: Collection[int]) -> None:
        """Lay them out.

        Args:
            pieces: by token; an empty one writes nothing.
            ends: tokens that end an answer, whatever their bytes.
        """
        ending = frozenset(ends)
        texts = [b"" if token in ending else piece for token, piece in enumerate(pieces)]
        self.ends = np.array(sorted(ending), np.int64)
        silent = [token for token, text in enumerate(texts) if not text and token not in ending]
        self.silent = np.array(silent, np.int64)  # those that write nothing, such as control tokens
        self._nodes = np.zeros(len(texts), np.int64)  # by token; 0, the root, for those without bytes
        order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
        lengths = np.array([len(text) for text in texts], np.int64)
        starts = np.cumsum(lengths) - lengths
        written = np.frombuffer(b"".join(texts), np.uint8)
        parents, bytes_of, count, depth = [np.zeros(1, np.int64)], [np.zeros(1, np.uint8)], 1, 0
        while len(order := order[lengths[order] > depth]):
            before, byte = self._nodes[order], written[starts[order] + depth]
            new = np.ones(len(order), bool)
            new[1:] = (before[1:] != before[:-1]) | (byte[1:] != byte[:-1])
            self._nodes[order] = count - 1 + np.cumsum(new)
            parents.append(before[new])
            bytes_of.append(byte[new])
            count, depth = count + int(new.sum()), depth + 1
        self._bytes = np.concatenate(bytes_of)
        self._children = np.bincount(np.concatenate(parents)[1:], minlength=count)
        self._first_child = 1 + np.cumsum(self._children) - self._children

    def fitting(self, automaton: Automaton, state: int) -> np.ndarray:
        """Return which tokens lead on from a state, bool [vocabulary]."""
        reached = np.zeros(len(self._bytes), bool)
        nodes, states = np.zeros(1, np.int64), np.full(1, state, np.int32)
        while len(nodes):
            automaton.work_out(np.flatnonzero(np.bincount(states)).tolist())
            counts = self._children[nodes]
            first = np.repeat(self._first_child[nodes] - np.cumsum(counts) + counts, counts)
            nodes = first + np.arange(len(first))
            states = automaton.ways.ravel().take(np.repeat(states, counts) * 256 + self._bytes[nodes])
            alive = states != DEAD
            nodes, states = nodes[alive], states[alive]
            reached[nodes] = True
        fit = reached[self._nodes]
        fit[self.ends] = automaton.is_end(state)
        return fit


class Matcher:
    """Follows one answer through its form."""

    def __init__(self, automaton: Automaton, pieces: Pieces, free: bool = False) -> None:
        """Follow it from its beginning; in one that is `free` tokens that write nothing may stand where it may end."""
        self._free = free
        self._automaton, self._pieces, self._state = automaton, pieces, automaton.start
        self._fitting: dict[int, np.ndarray] = {}

    @property
    def ended(self) -> bool:
        """Whether the answer is whole, and nothing may follow."""
        return not self._automaton.goes_on(self._state)

    def allowed(self) -> np.ndarray:
        """Return which tokens may come next, bool [vocabulary]. Raises RequestError where none can."""
        if self._state not in self._fitting:
            if len(self._fitting) >= KEPT:
                self._fitting.pop(next(iter(self._fitting)))
            fitting = self._pieces.fitting(self._automaton, self._state)
            fitting[self._pieces.silent] = self._free and self._automaton.is_end(self._state)
            self._fitting[self._state] = fitting
        fitting = self._fitting[self._state]
        if not fitting.any():
            raise RequestError("The model has no token for what must come next.")
        return fitting

    def take(self, text: bytes) -> bool:
        """Follow the answer's next bytes; False where the form has no such text."""
        self._automaton.allow()
        self._state = self._automaton.after(self._state, text)
        return self._state != DEAD
