"""Which of a model's tokens an answer may go on with, so that its text is of a form."""

from collections.abc import Collection, Iterable

import numpy as np

from llama.errors import RequestError
from llama.grammar.automaton import DEAD, Automaton

KEPT = 64  # states of a text whose tokens are remembered: one byte for each token there is


class Pieces:
    """The bytes of a vocabulary's tokens, side by side."""

    def __init__(self, pieces: Iterable[bytes], ends: Collection[int]) -> None:
        """Lay them out.

        Args:
            pieces: by token; none of an empty one is ever let through.
            ends: tokens that end an answer, whatever their bytes.
        """
        texts = [b"" if token in ends else piece for token, piece in enumerate(pieces)]
        self.ends = np.array(sorted(ends), np.int64)
        self.lengths = np.array([len(text) for text in texts], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._bytes = np.frombuffer(b"".join(texts), np.uint8)
        self._written = np.flatnonzero(self.lengths)

    def fitting(self, automaton: Automaton, state: int) -> np.ndarray:
        """Return which tokens lead on from a state, bool [vocabulary]: all of them at once, byte after byte."""
        fit = np.zeros(len(self.lengths), bool)
        tokens = self._written
        states = np.full(len(tokens), state, np.int32)
        depth = 0
        while len(tokens):
            automaton.work_out(np.flatnonzero(np.bincount(states)).tolist())
            states = automaton.ways[states, self._bytes[self._starts[tokens] + depth]]
            depth += 1
            whole = self.lengths[tokens] == depth
            fit[tokens[whole & (states != DEAD)]] = True
            on = ~whole & (states != DEAD)
            tokens, states = tokens[on], states[on]
        if automaton.is_end(state):
            fit[self.ends] = True
        return fit


class Matcher:
    """Follows one answer through its form."""

    def __init__(self, automaton: Automaton, pieces: Pieces) -> None:
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
            self._fitting[self._state] = self._pieces.fitting(self._automaton, self._state)
        fitting = self._fitting[self._state]
        if not fitting.any():
            raise RequestError("The model has no token for what must come next.")
        return fitting

    def take(self, text: bytes) -> bool:
        """Follow the answer's next bytes; False where the form has no such text."""
        self._automaton.allow()
        self._state = self._automaton.after(self._state, text)
        return self._state != DEAD
