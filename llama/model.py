"""One GGUF model in llama.cpp: load, decode, draw tokens. Not for two threads at once.

It goes below llama-cpp-python's `Llama`, which keeps one conversation's state and hides the steps between tokens.
"""

import ctypes
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import llama_cpp
import numpy as np

from common.errors import UserError
from llama.call_format import CallFormat
from llama.errors import EngineError
from llama.found import found_of
from llama.grammar.follow import Vocabulary
from llama.grammar.matcher import Followers
from llama.prompts import Prompts
from llama.thought_format import ThoughtFormat
from llama.threads import Threads
from llama.tokenizer import piece_of
from llama.types import Prompt, Sampling
from llama.variants import load_kernels

if TYPE_CHECKING:
    from llama.adapters import Adapters

BATCH = 256  # tokens decoded at a time at most
PENALTY_WINDOW = 256  # tokens of the answer back that penalties are counted over
MARK_TOKENS = 16  # at the end of a prompt, that a thought's mark and white space may take
NO_PENALTIES = (1.0, 0.0, 0.0)  # on repeats, frequency and presence
RANDOM_SEED = llama_cpp.LLAMA_DEFAULT_SEED  # llama.cpp's word for "draw a seed"
# What a GGUF's general.file_type stands for, as "15" for Q4_K_M.
FILE_TYPES = {
    str(number): name.removeprefix("LLAMA_FTYPE_").removeprefix("ALL_").removeprefix("MOSTLY_")
    for name, number in vars(llama_cpp).items()
    if name.startswith("LLAMA_FTYPE_") and name != "LLAMA_FTYPE_GUESSED"
}

# Types with kernels that add up otherwise from four tokens on, in one of llama.cpp's variants at least: an answer in
# company is not quite the one alone anyway. Of the others F32, F16, BF16 and Q8_0 add up alike in any number, the rest
# in up to seven.
INEXACT = ("Q2_K", "Q2_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M", "IQ3_M")

MAPPED_BYTES = 128 << 10  # glibc's own value at first, which setting it keeps

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_errors: list[str] = []  # what llama.cpp has complained of since it was last asked to load something
_BUFFER = re.compile(r"(\w+) buffer size = +([\d.]+) MiB")  # as in "CPU KV buffer size =    90.00 MiB"
_buffers: list[tuple[str, int]] = []  # what each that llama.cpp has made is for, and its bytes, since last looked
_loading = threading.RLock()  # since both lists are one for all: whoever loads beside another thread waits for it


@llama_cpp.llama_log_callback
def _keep_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Take llama.cpp's log: its hundred lines on each load stay out of ours.

    Its errors explain a failed one; and of the memory that it takes it gives no other account.
    """
    line = text.decode(errors="replace").strip()
    if level == _ERROR:
        _errors.append(line)
    elif found := _BUFFER.search(line):
        _buffers.append((found[1], round(float(found[2]) * 2**20)))


llama_cpp.llama_log_set(_keep_log, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def _map_large_blocks() -> None:
    """Keep glibc from taking large blocks, such as conversations put aside and models, out of its heap.

    It does so once it has freed some. Being of all sizes they leave holes: 25 MB in minutes under load, and growing.
    """
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, MAPPED_BYTES)


_map_large_blocks()


def metadata(path: Path) -> dict[str, str]:
    """Return what a file says of its model. Raises UserError for one that is no GGUF or ends before its last tensor.

    Reads the header, not the weights.
    """
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = load(path, params)
    try:
        return loaded_metadata(model)
    finally:
        llama_cpp.llama_model_free(model)


def quantization(metadata: Mapping[str, str]) -> str | None:
    """Return what the weights are quantized to, such as Q4_K_M, by a file's metadata; None where it does not say."""
    return FILE_TYPES.get(metadata.get("general.file_type", ""))


def loaded_metadata(model: "llama_cpp.llama_model_p") -> dict[str, str]:
    """Return what a loaded file says of its model; long values are cut."""
    buffer, pairs = ctypes.create_string_buffer(1024), {}
    for i in range(llama_cpp.llama_model_meta_count(model)):
        llama_cpp.llama_model_meta_key_by_index(model, i, buffer, len(buffer))
        key = buffer.value.decode(errors="replace")
        llama_cpp.llama_model_meta_val_str_by_index(model, i, buffer, len(buffer))
        pairs[key] = buffer.value.decode(errors="replace")
    return pairs


def last_error() -> str:
    """Return what llama.cpp complained of first since this was last asked, less its function's name."""
    reason = _errors[0].partition(": ")[2] if _errors else "llama.cpp gives no reason"
    _errors.clear()
    return reason


def load(path: Path, params: llama_cpp.llama_model_params) -> "llama_cpp.llama_model_p":
    """Load a file. Raises UserError with llama.cpp's reason, or for a TUNESMITH_CPU that cannot be (variants.py)."""
    load_kernels()
    with _loading:
        _errors.clear()
        _buffers.clear()
        model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if model is None:
            raise not_whole(path, last_error())
        return model


def not_whole(path: Path, reason: str) -> UserError:
    """Return what to raise for a file that is no GGUF, is damaged, or has what llama.cpp cannot read."""
    size = path.stat().st_size if path.exists() else 0
    return UserError(f"{path} ({size} bytes) is no whole GGUF model: {reason}; export it again or remove it")


class Memory(NamedTuple):
    """Bytes that an engine takes, as llama.cpp counts its buffers, to 10 KiB."""

    weights: int
    slot: int  # of each: its KV cache, and the logits after it
    work: int  # what is computed with

    def total(self, slots: int) -> int:
        """Return the bytes of an engine with so many slots."""
        return self.weights + slots * self.slot + self.work


class Weights:
    """A GGUF's weights in memory, which any number of contexts compute with; a `with` block frees them."""

    def __init__(self, path: Path, *, mapped: bool = False, check_tensors: bool = False) -> None:
        """Load them.

        Args:
            path: a GGUF file.
            mapped: leave them in the file, which takes no memory of its own; those that are rearranged for the
                processor are in memory a second time then, as the file has them.
            check_tensors: see that all are numbers.

        Raises UserError for a file that cannot be loaded.
        """
        params = llama_cpp.llama_model_default_params()
        params.check_tensors = check_tensors
        if not mapped:
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        self.path = path
        with _loading:
            self.model = load(path, params)
            self.bytes = sum(size for _, size in _buffers)
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        llama_cpp.llama_model_free(self.model)


def loaded(source: Path | Weights, *, mapped: bool = False) -> AbstractContextManager[Weights]:
    """Return a block that has weights: a file's, which it frees, or such as are there already. Raises UserError."""
    return nullcontext(source) if isinstance(source, Weights) else Weights(source, mapped=mapped)


def can_share(model: "llama_cpp.llama_model_p") -> bool:
    """Return whether a part of a conversation has a state of its own: not where one stands for all of it."""
    return not (llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))


State = ctypes.Array[ctypes.c_uint8]


class Scored(NamedTuple):
    """How likely a token was, before temperature and penalties: its bytes, log-probability and rivals."""

    piece: bytes
    logprob: float | None  # None of a text's first token, which nothing stands before
    likeliest: tuple[tuple[bytes, float], ...]  # the likeliest tokens, by themselves


class Entry(NamedTuple):
    """A token to decode."""

    token: int
    position: int
    slot: int
    drawn_from: bool  # whether a token is to be drawn after it
    adapter: str | None = None  # that it goes through
    of_prompt: bool = False  # and not of an answer, as are then all others of the decode


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two conversations begin with together."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(i for i in range(length) if one[i] != other[i])


class LlamaModel:
    """A model's weights and one context over them, whose KV cache has a slot for each of several conversations."""

    def __init__(
        self,
        source: Path | Weights,
        context: int,
        threads: int,
        slots: int = 1,
        today: datetime | None = None,
        chats: bool = True,
        adapters: "Adapters | None" = None,
    ) -> None:
        """Load the model.

        Args:
            source: a GGUF file, or its weights, which must outlive this.
            context: tokens of one conversation, answer included; as many as the model was trained for at most.
            threads: that compute at most; fewer while others want the CPUs (threads.py).
            slots: conversations of that length in the KV cache.
            today: what chat templates take for it; None is the day that it is.
            chats: whether it is asked conversations and texts, and not only to go on from token ids.
            adapters: that its tokens may go through; is closed with it.

        Raises UserError for a file that cannot be loaded.
        """
        with ExitStack() as stack:
            weights = stack.enter_context(loaded(source))
            self.path, self._model, self._vocab = weights.path, weights.model, weights.vocabulary
            self.context = min(context, llama_cpp.llama_model_n_ctx_train(self._model))
            self.slots = slots
            if chats:
                self._prompts = stack.enter_context(
                    closing(Prompts(self._model, self.context, today, found_of(self.path)))
                )
            self.adapters = adapters
            if adapters:
                stack.enter_context(closing(adapters)).attach(self._model)
            with _loading:
                _buffers.clear()
                self._context = llama_cpp.llama_init_from_model(self._model, self._context_params(threads))
                buffers = list(_buffers)
            if self._context is None:
                tokens = f"{slots} x {self.context} tokens"
                raise UserError(f"no memory for {tokens} with {self.path}: lower SERVE_SLOTS or SERVE_CONTEXT")
            stack.callback(llama_cpp.llama_free, self._context)
            work = sum(size for what, size in buffers if what == "compute")
            kept = sum(size for what, size in buffers if what != "compute")
            self.memory = Memory(weights.bytes, kept // slots, work)
            self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
            stack.callback(llama_cpp.llama_batch_free, self._batch)
            self._cells = llama_cpp.llama_get_memory(self._context)
            self._threads = Threads(threads)
            self._followers: dict[frozenset[int], Followers] = {}  # by the control tokens that are shown
            stack.callback(self._close_followers)
            self._resources = stack.pop_all()

    @property
    def can_cut(self) -> bool:
        """Whether a conversation can lose its end: not where one state stands for all of it."""
        return can_share(self._model)

    @property
    def inexact(self) -> bool:
        """Whether an answer in company may part from the one alone, where two tokens are all but equally likely."""
        return quantization(loaded_metadata(self._model)) in INEXACT

    @property
    def vocabulary(self) -> int:
        """Tokens that there are."""
        return llama_cpp.llama_vocab_n_tokens(self._vocab)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context and the weights; a second call does nothing."""
        self._resources.close()

    def prompt(self, messages: Prompt, drop_oldest: bool = False, bounded: bool = True) -> list[int]:
        """Return a conversation, or a text to go on with, as token ids (see Prompts.read). Raises RequestError."""
        return self._prompts.read(messages, drop_oldest, bounded)

    def adapter(self, name: str) -> str | None:
        """Return the adapter of a name, ready for use; None where none is called so.

        Raises UserError for a file that is not what it was.
        """
        if not self.adapters or name not in self.adapters:
            return None
        self.adapters.load(name)
        return name

    def decode(self, entries: Sequence[Entry]) -> None:
        """Put up to BATCH tokens through the model, each after those that its slot of the KV cache holds.

        Where there are adapters, of slots side by side, and as many of each.
        """
        threads = self._threads.now()
        llama_cpp.llama_set_n_threads(self._context, threads, threads)
        batch = self._batch
        batch.n_tokens = len(entries)
        for i, entry in enumerate(entries):
            batch.token[i], batch.pos[i], batch.logits[i] = entry.token, entry.position, entry.drawn_from
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, entry.slot
        if self.adapters:
            self.adapters.begin(self._context, entries)
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise EngineError(f"llama_decode returned {status}: {last_error()}")
        if self.adapters:
            self.adapters.end(self._context)

    def draw(self, sampler: "Sampler", index: int, allowed: np.ndarray | None = None) -> int:
        """Return the token that follows entry `index` of the batch decoded last.

        Args:
            sampler: that draws it.
            index: of the entry.
            allowed: which tokens it may be, bool [vocabulary]; None for all.
        """
        if allowed is None:
            return self._drawn(sampler, index)
        logits = self.logits(index)
        kept = logits.copy()
        logits[~allowed] = -np.inf
        token = self._drawn(sampler, index)
        logits[:] = kept  # for whoever asks how likely it was
        return token

    def _drawn(self, sampler: "Sampler", index: int) -> int:
        if sampler.chain is None:
            return int(self.logits(index).argmax())
        return llama_cpp.llama_sampler_sample(sampler.chain, self._context, index)

    def logits(self, index: int) -> np.ndarray:
        """Return the logits of all tokens that may follow entry `index` of the batch decoded last.

        Until the next one is decoded.
        """
        logits = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(logits, (self.vocabulary,))

    def scored(self, index: int, token: int, likeliest: int) -> Scored:
        """Return how likely a token was after entry `index` of the batch decoded last, and so many likeliest ones."""
        logits = self.logits(index).astype(np.float64)
        logprobs = logits - logits.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        best = np.argpartition(-logprobs, min(likeliest, len(logprobs) - 1))[:likeliest]
        best = best[np.argsort(-logprobs[best], kind="stable")]
        rivals = tuple((self.piece(int(i), special=True), float(logprobs[i])) for i in best)
        return Scored(self.piece(token, special=True), float(logprobs[token]), rivals)

    def ends_with(self, tokens: Sequence[int], mark: str) -> bool:
        """Return whether a prompt ends with a mark, such as the one that begins a thought, and perhaps white space."""
        end = b"".join(self.piece(token, special=True) for token in tokens[-MARK_TOKENS:])
        return end.rstrip().endswith(mark.encode())

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens by which the model ends its turn."""
        return self._prompts.ends

    @property
    def call_format(self) -> CallFormat:
        """How it calls tools."""
        return self._prompts.call_format

    def shown(self, calls: CallFormat | None, thoughts: ThoughtFormat) -> frozenset[int]:
        """Return the control tokens that an answer shows, since they are the marks of calls or of thoughts."""
        return self._prompts.control_tokens((*thoughts.marks, *((calls.example, calls.mark) if calls else ())))

    def followers(self, shown: frozenset[int] = frozenset()) -> Followers:
        """Return what follows answers by grammars, over its tokens' texts, of control tokens those that are shown."""
        if shown not in self._followers:
            texts = [self.piece(token, token in shown) for token in range(self.vocabulary)]
            self._followers[shown] = Followers(Vocabulary(texts, self.ends))
        return self._followers[shown]

    def _close_followers(self) -> None:
        for followers in self._followers.values():
            followers.close()

    @property
    def thoughts(self) -> ThoughtFormat:
        """How it writes what it thinks, if it does."""
        return self._prompts.thoughts

    @property
    def thinks(self) -> bool:
        """Whether its chat template knows of thoughts."""
        return self._prompts.thinks

    def is_end(self, token: int) -> bool:
        """Return whether the model ends its turn with this token."""
        return llama_cpp.llama_vocab_is_eog(self._vocab, token)

    def forget(self, slot: int, start: int = 0) -> None:
        """Drop what a slot of the KV cache holds from position `start` on."""
        llama_cpp.llama_memory_seq_rm(self._cells, slot, start, -1)

    def save(self, slot: int) -> State:
        """Return a copy of what a slot holds."""
        state = (ctypes.c_uint8 * llama_cpp.llama_state_seq_get_size(self._context, slot))()
        llama_cpp.llama_state_seq_get_data(self._context, state, len(state), slot)
        return state

    def restore(self, slot: int, state: State) -> None:
        """Let a slot hold what was copied, in the place of what it holds."""
        self.forget(slot)  # by itself llama.cpp keeps what is there when nothing was copied
        if not llama_cpp.llama_state_seq_set_data(self._context, state, len(state), slot):
            raise EngineError("llama.cpp takes no state that it gave")

    def piece(self, token: int, special: bool = False) -> bytes:
        """Return a token's text, which may be a part of a character; empty for special tokens unless asked for."""
        return piece_of(self._vocab, token, special)

    def _context_params(self, threads: int) -> llama_cpp.llama_context_params:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.slots * self.context
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.n_seq_max = self.slots
        # Flash attention, a tenth faster in prompts, adds up in another order when an answer is alone.
        if not self.inexact:
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if self.adapters:
            params.cb_eval = self.adapters.watch
        params.swa_full = True  # else an earlier part of a conversation could not be gone back to
        return params


class Sampler:
    """llama.cpp's chain of samplers for one answer; None where the likeliest token is all that is asked for."""

    def __init__(self, sampling: Sampling, vocabulary: int) -> None:
        """For a model with so many tokens."""
        self.chain = None
        penalties = sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
        if sampling.temperature == 0 and penalties == NO_PENALTIES and not sampling.logit_bias:
            return  # a chain copies the vocabulary first
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in self._samplers(sampling, penalties, vocabulary):
            llama_cpp.llama_sampler_chain_add(self.chain, sampler)

    def _samplers(
        self, sampling: Sampling, penalties: tuple[float, float, float], vocabulary: int
    ) -> Iterator["llama_cpp.llama_sampler_p"]:
        if sampling.logit_bias:
            biases = (llama_cpp.llama_logit_bias * len(sampling.logit_bias))()
            for entry, (token, bias) in zip(biases, sampling.logit_bias, strict=True):
                entry.token, entry.bias = token, bias
            yield llama_cpp.llama_sampler_init_logit_bias(vocabulary, len(biases), biases)
        if penalties != NO_PENALTIES:
            yield llama_cpp.llama_sampler_init_penalties(vocabulary, PENALTY_WINDOW, *penalties)
        if sampling.temperature == 0:
            yield llama_cpp.llama_sampler_init_greedy()
            return
        yield llama_cpp.llama_sampler_init_top_k(sampling.top_k)
        yield llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1)
        yield llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1)
        yield llama_cpp.llama_sampler_init_temp(sampling.temperature)
        yield llama_cpp.llama_sampler_init_dist(RANDOM_SEED if sampling.seed is None else sampling.seed)

    def close(self) -> None:
        """Free it; a second call does nothing."""
        if self.chain is not None:
            llama_cpp.llama_sampler_free(self.chain)
            self.chain = None
