"""Several answers at once from one model: continuous batching over one context of llama.cpp.

Each step decodes one token of every answer under way (Yu et al. 2022, Orca), or several where that pays
(speculation.py), and a piece of one prompt that is still to be read, so that a long one holds nobody up (Agrawal et al.
2023, Sarathi).

Each answer has a slot of the KV cache (llama.cpp's sequence), in which its conversation lies as it would alone: so it
is computed in the same order, and comes out the same, but for types that are INEXACT (model.py). A conversation stays
there when the answer is done; read anew, it would add up otherwise in most types, since an answer's tokens are computed
one by one or few at a time.
When another one needs the slot it is copied into the prompt cache, and the longest unused is forgotten when memory is
short. A later turn reads only what is new, and so does whoever begins as a known conversation does, with the
same system prompt for instance.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby

from llama.draft import Answering
from llama.errors import RequestError
from llama.model import BATCH, Entry, LlamaModel, State, shared_length
from llama.reader import Reader
from llama.speculation import Speculation
from llama.turn import Turn

CHUNK = 128  # tokens of a prompt in a step while answers wait for their next token
# Tokens of a prompt at once: attention adds up otherwise for one alone, as each of an answer's is.
FEWEST = 2
SCORED = 32  # of a prompt at once whose tokens are told with their chances: llama.cpp keeps the logits of each

logger = logging.getLogger(__name__)


@dataclass
class Slot:
    """A part of the KV cache, and the conversation in it."""

    id: int
    tokens: list[int] = field(default_factory=list)  # by position
    turn: Turn | None = None  # the answer under way
    adapter: str | None = None  # that the conversation went through
    used: float = 0.0  # monotonic clock


# Tokens to add to a slot: of its answer's prompt, or the last one of the answer with those drafted behind it.
Part = tuple[Slot, Turn, Sequence[int]]


@dataclass
class CachedPrompt:
    """A conversation's part of the KV cache, copied out of it."""

    tokens: list[int]
    state: State
    adapter: str | None = None


class Batch:
    """A model with the answers that it is giving."""

    def __init__(self, model: LlamaModel, prompt_cache_bytes: int = 0, speculation: Speculation | None = None) -> None:
        """With up to `prompt_cache_bytes` of conversations beside those in the cache.

        Drafts are tried where they may be; what drafts is closed with this.
        """
        self.model = model
        self._speculation = speculation
        if speculation and not speculation.allowed:
            logger.warning("%s: tokens add up otherwise together than alone, so none are drafted", model.path.name)
            speculation.close()
            self._speculation = None
        self._prompt_cache_bytes = prompt_cache_bytes
        self._slots = [Slot(i) for i in range(model.slots)]
        self._prompt_cache: list[CachedPrompt] = []  # the longest unused first
        self._reader = Reader()

    @property
    def active(self) -> list[Slot]:
        """Those with an answer under way; they lie side by side, since llama.cpp computes only neighbours at once."""
        return [slot for slot in self._slots if slot.turn]

    @property
    def reading(self) -> bool:
        """Whether a prompt is being written."""
        return self._reader.busy

    def read(self, turn: Turn, drop_oldest: bool, then: Callable[[], None]) -> Future[None]:
        """Write a turn's prompt beside the steps, one after the other, since a template may take a second.

        Args:
            turn: left out if it has been cancelled when its time comes.
            drop_oldest: see Turn.prepare.
            then: called when it is done, in another thread.
        """
        return self._reader.read(turn, lambda: turn.prepare(self.model, drop_oldest), then)

    def begin(self, turn: Turn) -> bool:
        """Take a turn in; False if it must wait until another one ends.

        Raises UserError for an adapter whose file is not what it was.
        """
        if all(slot.turn for slot in self._slots):
            return False
        adapter = self.model.adapter(turn.model)
        source, shared = (None, 0) if turn.unscored else self._known(turn.prompt, adapter)
        slot = self._free(source)
        if source is not slot or shared < len(slot.tokens):
            self._replace(slot, source, shared)
        turn.begin(self.model, shared)
        slot.turn, slot.adapter = turn, adapter
        return True

    def step(self) -> None:
        """Hand every answer under way its next token, and read on in one prompt; free what has ended."""
        for slot in reversed(self.active):
            if slot.turn and slot.turn.cancelled.is_set():
                self._release(slot)
        turns = [(slot, slot.turn) for slot in self.active if slot.turn]
        answering = [(slot, turn, turn.token) for slot, turn in turns if turn.token is not None]
        reading = [(slot, turn) for slot, turn in turns if turn.token is None]
        self._answer(answering)
        if reading:  # whoever has the least left, so that a short question is not held up by a long one
            slot, turn = min(reading, key=lambda read: (len(read[1].prompt) - len(read[0].tokens), read[1].began))
            if turn.unscored:
                self._score_prompt(slot, turn)
            else:
                piece = next_piece(turn.prompt[len(slot.tokens) :], CHUNK if answering else BATCH)
                self._decode([(slot, turn, piece)])  # by itself: llama.cpp would cut one from pieces put together
        for slot in reversed(self.active):  # the last first: into the place of another the last one moves
            if slot.turn and slot.turn.finished:
                self._release(slot)

    def _answer(self, answering: Sequence[tuple[Slot, Turn, int]]) -> None:
        """Go on with answers, each behind the token that was drawn last."""
        if not self._speculation or not answering:
            self._decode_side_by_side([(slot, turn, [token]) for slot, turn, token in answering])
            return
        tried = self._speculation.draft([
            Answering(turn, slot.id, slot.tokens, token) for slot, turn, token in answering
        ])  # fmt: skip
        drafts = [draft.tokens for draft in tried.drafts] or [[]] * len(answering)
        parts = [(slot, turn, [token, *draft]) for (slot, turn, token), draft in zip(answering, drafts, strict=True)]
        self._speculation.learn(tried, self._decode_side_by_side(parts))

    def _decode_side_by_side(self, parts: Sequence[Part]) -> list[int]:
        """Decode parts of equal length: all at once, or where there are adapters those of slots side by side."""
        decoded = runs(parts) if self.model.adapters else [parts]
        return [right for run in decoded for right in self._decode(run)]

    def _decode(self, parts: Sequence[Part]) -> list[int]:
        """Add tokens to slots; whoever's prompt ends with them, or has ended, is handed what follows.

        Return how many drafted tokens of each part were right.
        """
        entries: list[Entry] = []
        firsts: list[int] = []  # entry of each part
        for slot, turn, tokens in parts:
            start, end = len(slot.tokens), len(turn.prompt) - 1
            firsts.append(len(entries))
            slot.tokens.extend(tokens)
            of = slot.adapter, turn.token is None
            entries.extend(Entry(t, start + i, slot.id, start + i >= end, *of) for i, t in enumerate(tokens))
        if entries:
            self.model.decode(entries)
        return [self._hand_on(part, first) for part, first in zip(parts, firsts, strict=True)]

    def _hand_on(self, part: Part, first: int) -> int:
        """Hand an answer what follows its tokens, of which the first is entry `first`; return how many were drafted.

        That ends with the first that was drafted otherwise: what is behind it is cut from the slot.
        """
        slot, turn, tokens = part
        start, accepted = len(slot.tokens) - len(tokens), turn.accepted
        begin = max(len(turn.prompt) - 1 - start, 0)
        turn.drafted += max(len(tokens) - 1 - begin, 0)
        for index in range(begin, len(tokens)):
            last = index == len(tokens) - 1
            if not self._draw(turn, first + index, None if last else tokens[index + 1]) and not last:
                del slot.tokens[start + index + 1 :]
                self.model.forget(slot.id, len(slot.tokens))
                break
        return turn.accepted - accepted

    def _draw(self, turn: Turn, index: int, drafted: int | None) -> bool:
        """Hand an answer the token that follows an entry; return whether it goes on with the drafted one."""
        try:
            token, rivals = self.model.draw(turn.sampler, index, turn.allowed()), turn.sampling.logprobs
        except RequestError as error:
            turn.fail(error)
            return False
        scored = None if rivals is None else self.model.scored(index, token, rivals)
        turn.accepted += token == drafted
        turn.take(token, self.model, scored)
        return token == drafted and not turn.finished

    def _score_prompt(self, slot: Slot, turn: Turn) -> None:
        """Add the next tokens of a prompt, and tell how likely those behind each are.

        The last FEWEST are added again as those of any prompt are, so that the answer is the one without this.
        """
        end = len(turn.prompt) - 1
        start = end - turn.unscored
        piece, following = turn.prompt[start:end][:SCORED], turn.prompt[start + 1 :]
        of = slot.adapter, True
        self.model.decode([Entry(token, start + i, slot.id, True, *of) for i, token in enumerate(piece)])
        slot.tokens.extend(piece)
        rivals = turn.sampling.logprobs or 0
        turn.score_prompt(self.model, [self.model.scored(i, following[i], rivals) for i in range(len(piece))])
        if not turn.unscored and self.model.can_cut:
            del slot.tokens[len(turn.prompt) - FEWEST :]
            self.model.forget(slot.id, len(slot.tokens))

    def run(self, turn: Turn) -> None:
        """Give one answer, where no other is under way."""
        self.begin(turn)
        while not turn.finished:
            self.step()

    def run_all(self, turns: Iterable[Turn]) -> Iterator[Turn]:
        """Give several answers, as many at once as there are slots, in the order given; yield each turn as it ends."""
        waiting, begun = deque(turns), list[Turn]()
        while waiting or self.active:
            while waiting and self.begin(waiting[0]):
                begun.append(waiting.popleft())
            self.step()
            yield from (turn for turn in begun if turn.finished)
            begun = [turn for turn in begun if not turn.finished]

    def close(self) -> list[Turn]:
        """Free the model; return the turns that were under way. A prompt that was to be read can be read anew."""
        self._reader.close()
        turns = [slot.turn for slot in self._slots if slot.turn]
        for turn in turns:
            turn.sampler.close()
        if self._speculation:
            self._speculation.close()
        self.model.close()
        return turns

    def _known(self, prompt: Sequence[int], adapter: str | None) -> tuple[Slot | CachedPrompt | None, int]:
        """Return what holds most of the prompt's beginning, read through the same adapter, and how many tokens of it.

        A piece at least is left to decode, since the first token of the answer is drawn after it.
        """
        idle = [slot for slot in self._slots if not slot.turn]  # first, since nothing has to be copied there
        caches: list[Slot | CachedPrompt] = [*idle, *self.active, *self._prompt_cache]
        alike = [known for known in caches if known.adapter == adapter]
        found = ((shared_length(known.tokens, prompt[:-FEWEST]), known) for known in alike)
        shared, source = max(found, key=lambda pair: pair[0], default=(0, None))
        if not (shared and source) or (shared < len(source.tokens) and not self.model.can_cut):
            return None, 0
        return source, shared

    def _free(self, source: Slot | CachedPrompt | None) -> Slot:
        """Return a slot without an answer beside those with one.

        The source itself, an empty one or the longest unused.
        """
        taken = [slot.id for slot in self.active]
        beside = (taken[0] - 1, taken[-1] + 1) if taken else range(len(self._slots))
        free = [slot for slot in self._slots if slot.id in beside]
        return min(free, key=lambda slot: (slot is not source, bool(slot.tokens), slot.used))

    def _replace(self, slot: Slot, source: Slot | CachedPrompt | None, shared: int) -> None:
        """Let a slot begin with the first `shared` tokens of what is known; what it held goes into the prompt cache."""
        if isinstance(source, CachedPrompt):
            self._prompt_cache.remove(source)  # lest it be forgotten to make room
        self._cache(slot)
        if isinstance(source, CachedPrompt):
            self.model.restore(slot.id, source.state)
            if shared < len(source.tokens):  # a conversation of its own
                self._keep(source)
        elif source is not None and source is not slot:
            self.model.restore(slot.id, self.model.save(source.id))
        self.model.forget(slot.id, shared)
        slot.tokens = list(source.tokens[:shared]) if source else []

    def _cache(self, slot: Slot) -> None:
        """Copy a conversation out of the cache."""
        if slot.tokens and self._prompt_cache_bytes:
            self._keep(CachedPrompt(slot.tokens, self.model.save(slot.id), slot.adapter))

    def _keep(self, prompt_cache_bytes: CachedPrompt) -> None:
        """Remember a conversation as the one used last, as far as there is memory; with it, none that it begins as."""
        self._prompt_cache = [
            kept
            for kept in self._prompt_cache
            if kept.adapter != prompt_cache_bytes.adapter
            or kept.tokens != prompt_cache_bytes.tokens[: len(kept.tokens)]
        ]
        self._prompt_cache.append(prompt_cache_bytes)
        while sum(len(kept.state) for kept in self._prompt_cache) > self._prompt_cache_bytes:
            del self._prompt_cache[0]

    def _release(self, slot: Slot) -> None:
        """End an answer. Should it leave a gap between others, the last one moves there."""
        if slot.turn:
            slot.turn.sampler.close()
        slot.turn, slot.used = None, time.monotonic()
        active = self.active
        if active and active[0].id < slot.id < active[-1].id:
            last = active[-1]
            self._cache(slot)
            self.model.restore(slot.id, self.model.save(last.id))
            slot.tokens, slot.turn, slot.adapter = last.tokens, last.turn, last.adapter
            self.model.forget(last.id)
            last.tokens, last.turn = [], None


def next_piece(rest: Sequence[int], room: int) -> Sequence[int]:
    """Return what of the rest of a prompt goes next: all that takes half as much again as there is room for.

    Else as much as there is room for, but so that FEWEST tokens at least are left over.
    """
    size = len(rest) if len(rest) <= min(room + room // 2, BATCH) else min(room, len(rest) - FEWEST)
    return rest[:size]


def runs(parts: Sequence[Part]) -> list[list[Part]]:
    """Return them as runs of slots side by side with as many tokens each, which llama.cpp computes at once."""
    numbered = groupby(enumerate(parts), lambda part: (part[1][0].id - part[0], len(part[1][2])))
    return [[part for _, part in run] for _, run in numbered]
