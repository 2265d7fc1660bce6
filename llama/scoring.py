"""How likely a GGUF finds given continuations of given texts, many at once.

What texts begin with together is decoded once, each of its tokens for all sequences that go on from there: llama.cpp
takes a token of several sequences, over one KV cache for all of them. So each option of a question costs its own tokens
alone, and so does each question behind the same examples.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple, Self

import llama_cpp
import numpy as np

from common.errors import UserError
from llama.cpus import usable_cpus
from llama.errors import EngineError
from llama.model import BATCH, Weights, can_share, last_error, loaded, shared_length
from llama.threads import Threads

SEQUENCES = 64  # at a time at most
ROWS = 32  # of logits turned into probabilities at a time: 16 MiB over a vocabulary of 128k


class Text(NamedTuple):
    """A text as token ids, of which the last `scored` count; the first never does."""

    ids: Sequence[int]
    scored: int

    @property
    def read(self) -> Sequence[int]:
        """What is decoded: all but the last token, behind which nothing is asked for."""
        return self.ids[:-1]

    @property
    def first(self) -> int:
        """The first position whose logits count; they are of the token after it."""
        return len(self.ids) - self.scored - 1


class Likelihood(NamedTuple):
    """What a model finds of the tokens that count."""

    log: float  # of the probability of all of them, in nats
    greedy: bool  # whether each is the likeliest one where it stands


class Token(NamedTuple):
    """A token to decode."""

    id: int
    position: int
    sequences: range  # those that it is a part of


@dataclass(frozen=True)
class Group:
    """Texts that are decoded together, in an order in which those that begin alike stand side by side."""

    texts: list[Text]
    shared: list[int]  # tokens that each begins with as the one before it does, of the first the last group's last one

    @property
    def known(self) -> list[int]:
        """How many tokens of each text need not be decoded: those of the group before that no logits are asked of."""
        reaches = list(accumulate(self.shared, min))
        early = [text.first for text, reach in zip(self.texts, reaches, strict=True) if text.first < reach]
        return [min([reach, *early]) for reach in reaches]

    def tokens(self) -> Iterator[Token]:
        """Yield each token once, with the texts that go on from it: behind its owner, as long as they share it."""
        starts = [self.known[0], *self.shared[1:]]
        for owner, (text, start) in enumerate(zip(self.texts, starts, strict=True)):
            end = owner + 1
            ends = [owner + 1] * len(text.read)
            reach = len(text.read)
            while end < len(self.texts) and (reach := min(reach, self.shared[end])) > start:
                end += 1
                ends[start:reach] = [end] * (reach - start)
            for position in range(start, len(text.read)):
                yield Token(text.read[position], position, range(owner, ends[position]))

    def with_text(self, text: Text, shared: int) -> "Group":
        """Return the group with one more text."""
        return Group([*self.texts, text], [*self.shared, shared])

    def fits(self, sequences: int) -> bool:
        """Return whether it is decoded at once."""
        own = sum(len(text.read) for text in self.texts) - self.known[0] - sum(self.shared[1:])
        return len(self.texts) <= sequences and own <= BATCH


def grouped(texts: Sequence[Text], sequences: int) -> Iterator[Group]:
    """Yield sorted texts in groups that are decoded at once each, or have a single text that takes longer."""
    group, before = Group([], []), Text([], 0)
    for text in texts:
        shared = shared_length(before.read, text.read) if sequences > 1 else 0
        larger, before = group.with_text(text, shared), text
        if group.texts and not larger.fits(sequences):
            yield group
            larger = Group([text], [shared])
        group = larger
    if group.texts:
        yield group


class Scorer:
    """A model and the sequences that it is to judge; for use in a `with` block, which frees both."""

    def __init__(self, source: Path | Weights, longest: int) -> None:
        """Load the model.

        Args:
            source: the GGUF, or its weights, which must outlive this.
            longest: tokens of the longest text.

        Raises:
            UserError: the file cannot be loaded, or there is no memory for so many tokens.
        """
        with ExitStack() as stack:
            weights = stack.enter_context(loaded(source, mapped=True))
            self.sequences = SEQUENCES if can_share(weights.model) else 1
            self._context = llama_cpp.llama_init_from_model(weights.model, _params(longest, self.sequences))
            if self._context is None:
                raise UserError(f"no memory to score {longest} tokens at once with {weights.path.name}")
            stack.callback(llama_cpp.llama_free, self._context)
            self._batch = llama_cpp.llama_batch_init(BATCH, 0, self.sequences)
            stack.callback(llama_cpp.llama_batch_free, self._batch)
            self._resources = stack.pop_all()
        self._threads = Threads(usable_cpus())
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(weights.vocabulary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def likelihoods(self, texts: Sequence[Text]) -> Iterator[tuple[int, Likelihood]]:
        """Yield the number of each text, and what is found of it, in the order in which they are decoded."""
        order = sorted(range(len(texts)), key=lambda number: list(texts[number].read))
        numbers, last = iter(order), 0
        llama_cpp.llama_memory_clear(self._memory, True)
        for group in grouped([texts[number] for number in order], self.sequences):
            self._keep(last, group)
            last = len(group.texts) - 1
            yield from zip(islice(numbers, last + 1), self._judge(group), strict=False)

    def _keep(self, last: int, group: Group) -> None:
        """Let all sequences of a group begin with what it shares with the last one of the group before."""
        known = group.known
        for sequence in range(self.sequences):
            if sequence != last:
                llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        for sequence, length in enumerate(known):
            if sequence != last and length:
                llama_cpp.llama_memory_seq_cp(self._memory, last, sequence, 0, length)
        left = known[last] if last < len(known) else 0
        llama_cpp.llama_memory_seq_rm(self._memory, last, left, -1)

    def _judge(self, group: Group) -> list[Likelihood]:
        logs, greedy = [0.0] * len(group.texts), [True] * len(group.texts)
        tokens = group.tokens()
        while piece := list(islice(tokens, BATCH)):
            asked = [_asked(token, group.texts) for token in piece]
            self._decode(piece, [bool(targets) for targets in asked])
            rows = [targets for targets in asked if targets]
            for targets, (found, likeliest) in zip(rows, self._found(rows), strict=True):
                for (sequence, target), log in zip(targets, found, strict=True):
                    logs[sequence] += log
                    greedy[sequence] &= target == likeliest
        return [Likelihood(*each) for each in zip(logs, greedy, strict=True)]

    def _decode(self, tokens: Sequence[Token], scored: Sequence[bool]) -> None:
        threads = self._threads.now()
        llama_cpp.llama_set_n_threads(self._context, threads, threads)
        batch = self._batch
        batch.n_tokens = len(tokens)
        for slot, (token, wanted) in enumerate(zip(tokens, scored, strict=True)):
            batch.token[slot], batch.pos[slot], batch.logits[slot] = token.id, token.position, wanted
            batch.n_seq_id[slot] = len(token.sequences)
            of_token = batch.seq_id[slot]
            for at, sequence in enumerate(token.sequences):
                of_token[at] = sequence
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise EngineError(f"llama_decode returned {status}: {last_error()}")

    def _found(self, rows: Sequence[Sequence[tuple[int, int]]]) -> Iterator[tuple[list[float], int]]:
        """Yield the log-likelihoods of each row's targets, and its likeliest token, of what was decoded last."""
        if not rows:
            return
        pointer = llama_cpp.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, shape=(len(rows), self._vocabulary))
        for start in range(0, len(rows), ROWS):
            piece = logits[start : start + ROWS]
            highest = piece.max(axis=1, keepdims=True)
            with np.errstate(invalid="ignore"):  # a diverged model's are infinite, and then there is no likelihood
                totals = np.exp(piece - highest).sum(axis=1, dtype=np.float64)
            for row, top, total, targets in zip(piece, highest[:, 0], totals, rows[start:], strict=False):
                yield [float(row[target] - top) - float(np.log(total)) for _, target in targets], int(row.argmax())


def _asked(token: Token, texts: Sequence[Text]) -> list[tuple[int, int]]:
    """Return the sequences of a token whose next one counts, and that one."""
    after = token.position + 1
    return [(each, texts[each].ids[after]) for each in token.sequences if texts[each].first <= token.position]


def _params(longest: int, sequences: int) -> llama_cpp.llama_context_params:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = longest + BATCH  # what a group shares with the one before it, and what is its own
    params.n_batch = params.n_ubatch = BATCH
    params.n_seq_max = sequences
    params.kv_unified = True  # a cell is of several sequences
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it would add up in 16 bit
    params.swa_full = True  # else an earlier part of a sequence could not be gone back to
    return params
