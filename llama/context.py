"""A GGUF in llama.cpp for scoring: the logits of given tokens, a chunk at a time."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import llama_cpp
import numpy as np

from common.errors import UserError
from llama.cpus import usable_cpus
from llama.model import Weights, last_error, loaded

CHUNK = 128  # tokens decoded at once; 128 rows of logits over a vocabulary of 128k take 64 MiB


class Context:
    """A model and one sequence of tokens in it; for use in a `with` block, which frees both."""

    def __init__(self, source: Path | Weights, length: int, *, adapter: Path | None = None, watch: Any = None) -> None:
        """Load the model.

        Args:
            source: the GGUF, or its weights, which must outlive this.
            length: tokens of the longest sequence.
            adapter: a GGUF of a LoRA that is laid on the model.
            watch: a `llama_cpp.ggml_backend_sched_eval_callback` that sees every tensor computed.

        Raises:
            UserError: a file cannot be loaded, or there is no memory for so many tokens.
        """
        with ExitStack() as stack:
            weights = stack.enter_context(loaded(source, mapped=True))
            self.path, self.model = weights.path, weights.model
            self._watch = watch  # llama.cpp keeps a bare pointer to it
            self._context = llama_cpp.llama_init_from_model(self.model, _params(length, watch))
            if self._context is None:
                raise UserError(
                    f"no memory to score {length} tokens at once with {self.path.name}; end what else runs on this"
                    " machine, or lower evaluate.max_length"
                )
            stack.callback(llama_cpp.llama_free, self._context)
            if adapter:
                self._lay_on(adapter)
            self._batch: Any = llama_cpp.llama_batch_init(CHUNK, 0, 1)
            stack.callback(llama_cpp.llama_batch_free, self._batch)
            self._resources = stack.pop_all()
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(weights.vocabulary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free context and model; a second call does nothing."""
        self._resources.close()

    def logits(self, ids: Sequence[int], positions: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Decode a sequence from its start to the last position that is asked for.

        Args:
            ids: the sequence.
            positions: in it, ascending; a position's logits are of the token after it.

        Yields:
            Positions, at most CHUNK of them, and their logits, float32 [positions, vocabulary]; these are llama.cpp's
            own memory, which the next chunk overwrites.
        """
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        chosen = set(positions)
        for start in range(0, max(chosen, default=-1) + 1, CHUNK):
            chunk = range(start, min(start + CHUNK, max(chosen) + 1))
            scored = [position for position in chunk if position in chosen]
            self._decode(ids, chunk, chosen)
            if scored:
                logits = llama_cpp.llama_get_logits(self._context)
                yield scored, np.ctypeslib.as_array(logits, shape=(len(scored), self.vocabulary))

    def _lay_on(self, adapter: Path) -> None:
        loaded = llama_cpp.llama_adapter_lora_init(self.model, os.fsencode(adapter))  # is freed with the model
        if not loaded:
            raise UserError(f"{adapter.name} is no adapter for this model: {last_error()}")
        one = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(loaded)
        llama_cpp.llama_set_adapters_lora(self._context, one, 1, (ctypes.c_float * 1)(1.0))

    def _decode(self, ids: Sequence[int], chunk: range, scored: set[int]) -> None:
        batch = self._batch
        batch.n_tokens = len(chunk)
        for slot, position in enumerate(chunk):
            batch.token[slot], batch.pos[slot] = ids[position], position
            batch.n_seq_id[slot], batch.seq_id[slot][0] = 1, 0
            batch.logits[slot] = position in scored
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")


def _params(length: int, watch: Any) -> llama_cpp.llama_context_params:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = length
    params.n_batch = params.n_ubatch = CHUNK
    params.n_threads = params.n_threads_batch = usable_cpus()
    if watch is not None:
        params.cb_eval = watch
    return params
