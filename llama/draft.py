"""What an answer's next tokens may be: drafts, which cost little, and which speculation.py has the model check.

They come from the conversation itself, where the last few tokens stood in it before (prompt lookup decoding, Saxena
2023), or from a small model of the same vocabulary (Leviathan et al. 2023).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import ReferenceType, ref

import llama_cpp

from llama.model import BATCH, Entry, LlamaModel, load, shared_length
from llama.step_costs import probe
from llama.tokenizer import piece_of
from llama.turn import Turn

# Tokens that have to have stood before, the most telling first; a single one counts where it has come only once.
LENGTHS = (8, 4, 3, 2, 1)
MODEL = 0  # stands for the draft model where LENGTHS do for the conversation


class Draft(NamedTuple):
    """Tokens that may come next."""

    tokens: list[int]
    by: int  # one of LENGTHS, or MODEL


class Answering(NamedTuple):
    """An answer that is to get its next tokens."""

    turn: Turn
    slot: int
    known: Sequence[int]  # the conversation's tokens, which lie in the slot: while the turn lasts more come behind them
    token: int  # the answer's last one, which is to follow

    @property
    def length(self) -> int:
        """Tokens of the conversation, with the last one."""
        return len(self.known) + 1

    def tokens_from(self, start: int) -> list[int]:
        """Return those from a place on; of a long conversation no more is copied."""
        return [*self.known[start:], self.token][max(start - len(self.known), 0) :]


class Lookup:
    """What has followed the last tokens of a conversation where they stood in it before."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where what follows some tokens begins, the last time
        self._often: set[tuple[int, ...]] = set()  # single tokens that tell nothing, having come more than once

    @property
    def length(self) -> int:
        """Tokens of the conversation that were read."""
        return len(self._tokens)

    def read(self, new: Sequence[int]) -> None:
        """Take in what a conversation has grown by."""
        tokens = self._tokens
        for token in new:
            end = len(tokens)
            if tuple(tokens[-1:]) in self._after:
                self._often.add(tuple(tokens[-1:]))
            for length in LENGTHS:
                if end >= length:
                    self._after[tuple(tokens[end - length :])] = end
            tokens.append(token)

    def draft(self, most: int) -> Draft | None:
        """Return up to `most` tokens that may come next; None where the last ones are new."""
        tokens = self._tokens
        for length in LENGTHS:
            last = tuple(tokens[-length:])
            start = None if last in self._often else self._after.get(last)
            if start is not None and len(tokens) >= length:
                drafted = tokens[start : start + most]
                while len(drafted) < most:  # it repeats itself
                    drafted.append(drafted[start - len(tokens)])
                return Draft(drafted, length)
        return None


class Held:
    """What lies in one of a draft model's slots."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.tokens: list[int] = []
        self._known = 0  # of the conversation that was read last, whose turn this is
        self._turn: ReferenceType[Turn] | None = None

    def shared(self, answering: Answering) -> int:
        """Return how many tokens of a conversation lie here; those that were known of its turn need no look."""
        known = self._known if self._turn and self._turn() is answering.turn else 0
        return known + shared_length(self.tokens[known:], answering.known[known:])

    def hold(self, answering: Answering, shared: int) -> None:
        """Take in what has been read of a conversation, behind the tokens that lay here."""
        self.tokens[shared:] = answering.known[shared:]
        self._known, self._turn = len(answering.known), ref(answering.turn)


class DraftModel:
    """A small model with the same slots as the large one, which goes on with what lies in them."""

    def __init__(self, model: LlamaModel) -> None:
        """Draft with a model, which is closed with this."""
        self._model = model
        self._slots = [Held() for _ in range(model.slots)]
        self.costs = probe(model)[1]

    @property
    def context(self) -> int:
        """Tokens that a conversation may have."""
        return self._model.context

    def __str__(self) -> str:
        """Return its name."""
        return self._model.path.stem

    def draft(self, answers: Sequence[Answering], count: int) -> list[list[int]]:
        """Return the `count` tokens that follow each answer's last one; their slots lie side by side."""
        for answering in answers:
            self._catch_up(answering)
        began = time.perf_counter()
        drafts = self._go_on(answers, count)
        self.costs.learn(len(answers), (time.perf_counter() - began) / count)
        return drafts

    def _go_on(self, answers: Sequence[Answering], count: int) -> list[list[int]]:
        drafts: list[list[int]] = [[] for _ in answers]
        held = [self._slots[answering.slot].tokens for answering in answers]
        last = [answering.token for answering in answers]
        for _ in range(count):
            places = zip(answers, last, held, strict=True)
            self._model.decode([Entry(token, len(tokens), a.slot, True) for a, token, tokens in places])
            for tokens, token in zip(held, last, strict=True):
                tokens.append(token)
            last = [int(self._model.logits(index).argmax()) for index in range(len(answers))]
            for draft, token in zip(drafts, last, strict=True):
                draft.append(token)
        return drafts

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _catch_up(self, answering: Answering) -> None:
        """Let a slot hold what is known of an answer's conversation."""
        held, known = self._slots[answering.slot], answering.known
        shared = held.shared(answering)
        if shared < len(held.tokens):
            self._model.forget(answering.slot, shared)
        for start in range(shared, len(known), BATCH):
            piece = known[start : start + BATCH]
            self._model.decode([Entry(token, start + i, answering.slot, False) for i, token in enumerate(piece)])
        held.hold(answering, shared)


def vocabulary(path: Path) -> list[bytes]:
    """Return the text of each token of a file. Raises UserError for one that cannot be loaded."""
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = load(path, params)
    try:
        tokens = llama_cpp.llama_model_get_vocab(model)
        return [piece_of(tokens, token, special=True) for token in range(llama_cpp.llama_vocab_n_tokens(tokens))]
    finally:
        llama_cpp.llama_model_free(model)
