"""Conversations as the model will read them, cut into pieces that are learnt, or control tokens, or beyond the end."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from pipeline.core.messages import Messages, said
from pipeline.models import control
from pipeline.models.chat import ENDLESS, encode, is_text, learnt_turns
from pipeline.models.turns import Message, RefusedError


class Reading(NamedTuple):
    """How a split is read."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int  # tokens of a row
    key: str  # which setting that is
    loss_on: str


class Piece(NamedTuple):
    """Text of neighbouring tokens of one kind."""

    text: str
    learnt: bool
    control: bool  # a control token, of which each is a piece
    cut: bool  # beyond max_length


class Turn(NamedTuple):
    """Who speaks, and in how many tokens; the template's own are not counted."""

    role: str
    tokens: int
    learnt: bool


class SeenRow(NamedTuple):
    """A row of token ids, as text."""

    pieces: list[Piece]
    tokens: int
    learnt: int
    cut: int  # tokens beyond max_length
    learnt_cut: int


class Conversation(NamedTuple):
    """A conversation of a split, and the rows that it makes: none where the template does not take it."""

    number: int  # in its split, from 1
    turns: list[Turn]
    rows: list[SeenRow]
    refused: str
    controls: dict[str, int]  # control tokens in its words, which stay text
    name: str = ""  # of an answer that is compared or judged


def read_conversation(reading: Reading, number: int, messages: Sequence[Message], name: str = "") -> Conversation:
    """Return a conversation as it will be read."""
    found = dict(control.found(reading.tokenizer, messages))
    try:
        rows = whole_rows(reading, messages)
        turns = list(_turns(reading, messages))
    except RefusedError as refused:
        return Conversation(number, [], [], str(refused), found, name)
    return Conversation(number, turns, [_seen(reading, ids, mask) for ids, mask in rows], "", found, name)


def whole_rows(reading: Reading, messages: Sequence[Message]) -> list[tuple[list[int], list[int]]]:
    """Return what training makes of a conversation before it cuts it.

    Raises:
        RefusedError: the template does not take it.
    """
    length = reading.max_length if is_text(messages) else ENDLESS  # a plain text goes on in the next row
    return encode(reading.tokenizer, messages, length, reading.loss_on)


def _turns(reading: Reading, messages: Sequence[Message]) -> Iterator[Turn]:
    learnt = [0] if is_text(messages) else learnt_turns(messages, reading.loss_on)
    for index, message in enumerate(cast(Messages, control.disguised(reading.tokenizer, messages))):
        ids, _ = control.tokens(reading.tokenizer, said(message))
        yield Turn(message["role"], len(ids), index in learnt)


def _seen(reading: Reading, ids: list[int], mask: list[int]) -> SeenRow:
    kept = sum(mask[: reading.max_length])
    pieces = list(_pieces(reading, ids, mask))
    return SeenRow(pieces, len(ids), sum(mask), max(len(ids) - reading.max_length, 0), sum(mask) - kept)


def _pieces(reading: Reading, ids: list[int], mask: list[int]) -> Iterator[Piece]:
    """Yield a row's pieces; what a piece adds to the text before it is its own, since tokens share characters."""
    controls = control.control_tokens(reading.tokenizer)

    def kind(at: int) -> tuple[bool, int | None, bool]:
        return bool(mask[at]), at if ids[at] in controls else None, at >= reading.max_length

    before = ""
    for (is_learnt, control_at, is_cut), places in groupby(range(len(ids)), kind):
        end = list(places)[-1] + 1
        text = str(reading.tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        yield Piece(text[len(before) :], is_learnt, control_at is not None, is_cut)
        before = text
