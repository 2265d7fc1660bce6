"""Several answers at once from one model: continuous batching over one context of llama.cpp.

Each step decodes one token of every answer under way (Yu et al. 2022, Orca) and a piece of one prompt that is still to
be read, so that a long one holds nobody up (Agrawal et al. 2023, Sarathi).

Each answer has a stream of the KV cache, in which its conversation lies as it would alone: so it is computed in the
same order, and comes out the same, but for types that are INEXACT (llama.py). A conversation stays there when the
answer is done; read anew, it would add up otherwise, since an answer's tokens are computed one by one. When another one
needs the stream it is copied aside, and the longest unused is forgotten when memory is short. A later turn reads only
what is new, and so does whoever begins as a known conversation does, with the same system prompt for instance.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from serve.answer import Turn
from serve.llama import BATCH, Entry, LlamaModel, State

CHUNK = 128  # tokens of a prompt in a step while answers wait for their next token
# Tokens of a prompt at once: attention adds up otherwise for one alone, as each of an answer's is.
FEWEST = 2


@dataclass
class Stream:
    """A part of the KV cache, and the conversation in it."""

    id: int
    tokens: list[int] = field(default_factory=list)  # by position
    turn: Turn | None = None  # the answer under way
    used: float = 0.0  # monotonic clock


@dataclass
class Aside:
    """A conversation's part of the KV cache, copied out of it."""

    tokens: list[int]
    state: State


class Batch:
    """A model with the answers that it is giving."""

    def __init__(self, model: LlamaModel, aside: int = 0) -> None:
        """With up to `aside` bytes of conversations beside those in the cache."""
        self.model = model
        self._room_aside = aside
        self._streams = [Stream(i) for i in range(model.streams)]
        self._aside: list[Aside] = []  # the longest unused first

    @property
    def active(self) -> list[Stream]:
        """Those with an answer under way; they lie side by side, since llama.cpp computes only neighbours at once."""
        return [stream for stream in self._streams if stream.turn]

    def begin(self, turn: Turn) -> bool:
        """Take a turn in; False if it must wait until another one ends."""
        if all(stream.turn for stream in self._streams):
            return False
        source, shared = self._known(turn.prompt)
        stream = self._free(source)
        if source is not stream or shared < len(stream.tokens):
            self._replace(stream, source, shared)
        turn.begin(self.model, shared)
        stream.turn = turn
        return True

    def step(self) -> None:
        """Hand every answer under way its next token, and read on in one prompt; frees what has ended."""
        for stream in reversed(self.active):
            if stream.turn and stream.turn.cancelled.is_set():
                self._release(stream)
        turns = [(stream, stream.turn) for stream in self.active if stream.turn]
        answering = [(stream, turn, [turn.token]) for stream, turn in turns if turn.token is not None]
        reading = [(stream, turn) for stream, turn in turns if turn.token is None]
        self._decode(answering)
        if reading:  # whoever has the least left, so that a short question is not held up by a long one
            stream, turn = min(reading, key=lambda read: (len(read[1].prompt) - len(read[0].tokens), read[1].began))
            piece = next_piece(turn.prompt[len(stream.tokens) :], CHUNK if answering else BATCH)
            self._decode([(stream, turn, piece)])  # by itself: llama.cpp would cut one from pieces put together
        for stream in reversed(self.active):  # the last first: into the place of another the last one moves
            if stream.turn and stream.turn.finished:
                self._release(stream)

    def _decode(self, parts: Sequence[tuple[Stream, Turn, Sequence[int]]]) -> None:
        """Add tokens to streams; whoever's prompt ends with them, or has ended, is handed the next token."""
        entries: list[Entry] = []
        drawn: list[tuple[int, Turn]] = []  # after which entry, for whom
        for stream, turn, tokens in parts:
            start = len(stream.tokens)
            stream.tokens.extend(tokens)
            ends = len(stream.tokens) >= len(turn.prompt)
            last = len(tokens) - 1
            entries.extend(Entry(t, start + i, stream.id, ends and i == last) for i, t in enumerate(tokens))
            if ends:
                drawn.append((len(entries) - 1, turn))
        if entries:
            self.model.decode(entries)
        for index, turn in drawn:
            turn.take(self.model.draw(turn.sampler, index), self.model)

    def run(self, turn: Turn) -> None:
        """Give one answer, where no other is under way."""
        self.begin(turn)
        while not turn.finished:
            self.step()

    def close(self) -> list[Turn]:
        """Free the model; returns the turns that were under way."""
        turns = [stream.turn for stream in self._streams if stream.turn]
        for turn in turns:
            turn.sampler.close()
        self.model.close()
        return turns

    def _known(self, prompt: Sequence[int]) -> tuple[Stream | Aside | None, int]:
        """What holds most of the prompt's beginning, and how many tokens of it.

        A piece at least is left to decode, since the first token of the answer is drawn after it.
        """
        idle = [stream for stream in self._streams if not stream.turn]  # first, since nothing has to be copied there
        known: list[Stream | Aside] = [*idle, *self.active, *self._aside]
        shared, source = max(((common(k.tokens, prompt[:-FEWEST]), k) for k in known), key=lambda pair: pair[0])
        if not shared or (shared < len(source.tokens) and not self.model.can_cut):
            return None, 0
        return source, shared

    def _free(self, source: Stream | Aside | None) -> Stream:
        """A stream without an answer beside those with one: the source itself, an empty one or the longest unused."""
        taken = [stream.id for stream in self.active]
        beside = (taken[0] - 1, taken[-1] + 1) if taken else range(len(self._streams))
        free = [stream for stream in self._streams if stream.id in beside]
        return min(free, key=lambda stream: (stream is not source, bool(stream.tokens), stream.used))

    def _replace(self, stream: Stream, source: Stream | Aside | None, shared: int) -> None:
        """Let a stream begin with the first `shared` tokens of what is known; what it held is put aside."""
        if isinstance(source, Aside):
            self._aside.remove(source)  # lest it be forgotten to make room
        self._put_aside(stream)
        if isinstance(source, Aside):
            self.model.restore(stream.id, source.state)
            if shared < len(source.tokens):  # a conversation of its own
                self._keep(source)
        elif source is not None and source is not stream:
            self.model.restore(stream.id, self.model.save(source.id))
        self.model.forget(stream.id, shared)
        stream.tokens = list(source.tokens[:shared]) if source else []

    def _put_aside(self, stream: Stream) -> None:
        """Copy a conversation out of the cache."""
        if stream.tokens and self._room_aside:
            self._keep(Aside(stream.tokens, self.model.save(stream.id)))

    def _keep(self, aside: Aside) -> None:
        """Remember a conversation as the one used last, as far as there is memory; with it, none that it begins as."""
        self._aside = [kept for kept in self._aside if kept.tokens != aside.tokens[: len(kept.tokens)]]
        self._aside.append(aside)
        while sum(len(kept.state) for kept in self._aside) > self._room_aside:
            del self._aside[0]

    def _release(self, stream: Stream) -> None:
        """An answer is over. Should it leave a gap between others, the last one moves there."""
        if stream.turn:
            stream.turn.sampler.close()
        stream.turn, stream.used = None, time.monotonic()
        active = self.active
        if active and active[0].id < stream.id < active[-1].id:
            last = active[-1]
            self._put_aside(stream)
            self.model.restore(stream.id, self.model.save(last.id))
            stream.tokens, stream.turn = last.tokens, last.turn
            self.model.forget(last.id)
            last.tokens, last.turn = [], None


def next_piece(rest: Sequence[int], room: int) -> Sequence[int]:
    """What of the rest of a prompt goes next: all that takes half as much again as there is room for.

    Else as much as there is room for, but so that FEWEST tokens at least are left over.
    """
    size = len(rest) if len(rest) <= min(room + room // 2, BATCH) else min(room, len(rest) - FEWEST)
    return rest[:size]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two conversations begin with together."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(i for i in range(length) if one[i] != other[i])
