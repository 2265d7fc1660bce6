"""How far a greedy answer in company may part from the one given alone: where its two best logits all but tie.

Kernels of some types add up in another order when they decode several tokens at once, and so does flash attention. What
that changes is measured on answers given alone, decoded once more in each other's company: by how much one logit gains
on another at most. Where an answer parts from the one alone, the two best logits have to lie closer than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llama.batch import next_piece
from llama.model import BATCH, Entry, LlamaModel
from llama.types import Message

PIECE = 30  # tokens of a prompt at a time in company


@dataclass(frozen=True)
class Alone:
    """A greedy answer that nobody else's disturbed."""

    prompt: list[int]
    tokens: list[int]
    texts: list[str]  # up to and with each token
    logits: list[np.ndarray]  # that each token was drawn from, and the end where there is one

    def margin(self, index: int) -> float:
        """Return the distance of the two best logits where token `index` was drawn."""
        second, first = np.partition(self.logits[index], -2)[-2:]
        return float(first - second)

    def parting(self, answer: str, whole: bool = True) -> int | None:
        """Return the token from which on another answer, unless `whole` cut short, has another text.

        None if there is none.
        """
        for index, text in enumerate(self.texts):
            if not answer.startswith(text) and (whole or not text.startswith(answer)):
                return index
        full_text = self.texts[-1] if self.texts else ""
        return len(self.texts) if len(answer) > len(full_text) else None

    def ties(self, answer: str, noise: float, whole: bool = True) -> bool:
        """Return whether another answer is this one, up to a token whose two best logits lie closer than the noise."""
        index = self.parting(answer, whole)
        return index is None or self.margin(index) < noise


def alone(model: LlamaModel, messages: Sequence[Message], most: int) -> Alone:
    """Return an answer of up to `most` tokens, in stream 0 of the KV cache."""
    prompt = model.prompt(messages)
    answer, at, text = Alone(prompt, [], [], []), len(prompt), b""
    entry = read(model, 0, prompt, BATCH)
    while True:
        answer.logits.append(model.logits(entry).copy())
        token = int(answer.logits[-1].argmax())
        if model.is_end(token):
            return answer
        text += model.piece(token)
        answer.tokens.append(token)
        answer.texts.append(text.decode(errors="ignore"))
        if len(answer.tokens) == most:
            return answer
        model.decode([Entry(token, at, 0, True)])
        at, entry = at + 1, 0


def measure(model: LlamaModel, answers: Sequence[Alone]) -> float:
    """Return by how much one logit gains on another at most while an answer goes on in each of the model's slots."""
    gained = [0.0]

    def compare(answer: Alone, index: int, entry: int) -> None:
        change = model.logits(entry) - answer.logits[index]
        gained.append(float(change.max() - change.min()))

    for slot, answer in enumerate(answers):
        last = read(model, slot, answer.prompt, PIECE)
        compare(answer, 0, last)
    for index in range(1, min(len(answer.logits) for answer in answers)):
        model.decode([
            Entry(answer.tokens[index - 1], len(answer.prompt) + index - 1, slot, True)
            for slot, answer in enumerate(answers)
        ])  # fmt: skip
        for slot, answer in enumerate(answers):
            compare(answer, index, slot)
    return max(gained)


def read(model: LlamaModel, slot: int, prompt: Sequence[int], size: int) -> int:
    """Decode a prompt into an empty stream, `size` tokens at a time; returns which entry was the last."""
    model.forget(slot)
    start = 0
    while piece := next_piece(prompt[start:], size):
        last = len(prompt) - 1 - start
        model.decode([Entry(token, start + i, slot, i == last) for i, token in enumerate(piece)])
        start += len(piece)
    return last
