"""What an answer's next tokens may be: drafts, which cost little, and which speculation.py has the model check.

They come from the conversation itself, where the last few tokens stood in it before (prompt lookup decoding, Saxena
2023), or from a small model of the same vocabulary (Leviathan et al. 2023).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import llama_cpp

from llama.model import BATCH, Entry, LlamaModel, load, shared_length
from llama.step_costs import probe
from llama.tokenizer import piece_of

# Tokens that have to have stood before, the most telling first; a single one counts where it has come only once.
LENGTHS = (8, 4, 3, 2, 1)
MODEL = 0  # stands for the draft model where LENGTHS do for the conversation


class Draft(NamedTuple):
    """Tokens that may come next."""

    tokens: list[int]
    by: int  # one of LENGTHS, or MODEL


class Lookup:
    """What has followed the last tokens of a conversation where they stood in it before."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where what follows some tokens begins, the last time
        self._often: set[tuple[int, ...]] = set()  # single tokens that tell nothing, having come more than once

    def read(self, conversation: Sequence[int]) -> None:
        """Take in what a conversation has grown by."""
        tokens = self._tokens
        for token in conversation[len(tokens) :]:
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


class DraftModel:
    """A small model with the same slots as the large one, which goes on with what lies in them."""

    def __init__(self, model: LlamaModel) -> None:
        """Draft with a model, which is closed with this."""
        self._model = model
        self._slots: list[list[int]] = [[] for _ in range(model.slots)]
        self.costs = probe(model)[1]

    @property
    def context(self) -> int:
        """Tokens that a conversation may have."""
        return self._model.context

    def __str__(self) -> str:
        """Return its name."""
        return self._model.path.stem

    def draft(self, conversations: Sequence[tuple[int, Sequence[int]]], count: int) -> list[list[int]]:
        """Return the `count` tokens that follow each conversation, given with its slot; slots lie side by side."""
        for slot, tokens in conversations:
            self._catch_up(slot, tokens[:-1])
        began = time.perf_counter()
        drafts = self._go_on(conversations, count)
        self.costs.learn(len(conversations), (time.perf_counter() - began) / count)
        return drafts

    def _go_on(self, conversations: Sequence[tuple[int, Sequence[int]]], count: int) -> list[list[int]]:
        drafts: list[list[int]] = [[] for _ in conversations]
        last = [tokens[-1] for _, tokens in conversations]
        for _ in range(count):
            slots = [slot for slot, _ in conversations]
            entries = [Entry(t, len(self._slots[slot]), slot, True) for t, slot in zip(last, slots, strict=True)]
            self._model.decode(entries)
            for slot, token in zip(slots, last, strict=True):
                self._slots[slot].append(token)
            last = [int(self._model.logits(index).argmax()) for index in range(len(entries))]
            for draft, token in zip(drafts, last, strict=True):
                draft.append(token)
        return drafts

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _catch_up(self, slot: int, tokens: Sequence[int]) -> None:
        """Let a slot hold these tokens."""
        known = self._slots[slot]
        shared = shared_length(known, tokens)
        if shared < len(known):
            self._model.forget(slot, shared)
        for start in range(shared, len(tokens), BATCH):
            piece = tokens[start : start + BATCH]
            self._model.decode([Entry(token, start + i, slot, False) for i, token in enumerate(piece)])
        self._slots[slot] = list(tokens)


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
