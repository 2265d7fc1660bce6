"""Texts as vectors, by a model that was trained for it: one text after the other, each in a step of its own.

How a text's tokens become one vector (the mean of all, the first or the last one) is for the file to say.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path

import llama_cpp
import numpy as np

from common.errors import UserError
from llama.batch import Slot
from llama.errors import EngineError, RequestError
from llama.found import found_of
from llama.memory import check_work, work_bytes
from llama.model import BATCH, Weights, last_error, loaded_metadata
from llama.prompts import Prompts
from llama.reader import Reader
from llama.threads import Threads
from llama.tokenizer import piece_of, value
from llama.turn import Turn
from llama.types import Prompt

BY_LAST = str(llama_cpp.LLAMA_POOLING_TYPE_LAST)


class Embedder:
    """A model's weights and a context over them; to the engine what a Batch is, but that no answer is under way."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        """Load the model.

        Args:
            path: a GGUF file.
            context: tokens of the longest text; as many as the model was trained for at most.
            threads: that compute at most.

        Raises UserError for a file that cannot be loaded.
        """
        with ExitStack() as stack:
            weights = stack.enter_context(Weights(path))
            self._vocab = weights.vocabulary
            self._most = min(context, llama_cpp.llama_model_n_ctx_train(weights.model))
            self._prompts = stack.enter_context(closing(Prompts(weights.model, self._most, found=found_of(path))))
            # Where the last token stands for all, they need not be computed at once.
            architecture = value(weights.model, "general.architecture")
            by_last = value(weights.model, f"{architecture}.pooling_type") == BY_LAST
            self._piece = min(BATCH, self._most) if by_last else self._most
            check_work(path.stem, self._piece, work_bytes(loaded_metadata(weights.model), self._piece))
            self._context = llama_cpp.llama_init_from_model(weights.model, _params(self._most, self._piece, threads))
            if self._context is None:
                raise UserError(f"no memory for {self._most} tokens with {path}: lower SERVE_CONTEXT")
            stack.callback(llama_cpp.llama_free, self._context)
            self._batch = llama_cpp.llama_batch_init(self._piece, 0, 1)
            stack.callback(llama_cpp.llama_batch_free, self._batch)
            self._width = llama_cpp.llama_model_n_embd_out(weights.model)
            self._threads = Threads(threads)
            self._resources = stack.pop_all()
        self._reader = Reader()

    @property
    def active(self) -> Sequence[Slot]:
        """The answers under way: none ever is."""
        return ()

    @property
    def reading(self) -> bool:
        """Whether a text is being read as token ids."""
        return self._reader.busy

    def read(self, turn: Turn, _: bool, then: Callable[[], None]) -> Future[None]:
        """Read a turn's text as token ids beside the steps (see Batch.read)."""
        return self._reader.read(turn, lambda: turn.read(self), then)

    def begin(self, turn: Turn) -> bool:
        """Turn a text into its vector, which ends the turn."""
        turn.began = time.monotonic()
        turn.end_embedded(self.embed(turn.prompt))
        return True

    def step(self) -> None:
        """Do nothing: no text takes more than one step."""

    def close(self) -> list[Turn]:
        """Free the model; no turn was under way."""
        self._reader.close()
        self._resources.close()
        return []

    def prompt(self, text: Prompt, bounded: bool = True) -> list[int]:
        """Return a text as token ids, with what the model wants around it. Raises RequestError."""
        tokens = self._prompts.read(text, bounded=False)
        if bounded and not tokens:
            raise RequestError("The text is empty.", param="prompt")
        if bounded and len(tokens) > self._most:
            why = f"The text takes {len(tokens)} tokens, and this model's maximum is {self._most}: shorten it."
            raise RequestError(why, "context_length_exceeded", "prompt")
        return tokens

    def piece(self, token: int, special: bool = False) -> bytes:
        """Return a token's text, which may be a part of a character; empty for special tokens unless asked for."""
        return piece_of(self._vocab, token, special)

    def embed(self, tokens: Sequence[int]) -> np.ndarray:
        """Return a text's vector, float32 [width], of length one."""
        threads = self._threads.now()
        llama_cpp.llama_set_n_threads(self._context, threads, threads)
        cells = llama_cpp.llama_get_memory(self._context)  # a model that reads both ways has none
        if cells is not None:
            llama_cpp.llama_memory_clear(cells, True)
        for start in range(0, len(tokens), self._piece):
            self._decode(tokens[start : start + self._piece], start)
        pointer = llama_cpp.llama_get_embeddings_seq(self._context, 0)
        vector = unit(np.ctypeslib.as_array(pointer, (self._width,)))
        if not np.isfinite(vector).all():
            raise EngineError("the model's numbers are infinite")
        return vector

    def _decode(self, tokens: Sequence[int], start: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = token, start + i, True
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise EngineError(f"llama_decode returned {status}: {last_error()}")


def unit(vector: np.ndarray) -> np.ndarray:
    """Return a vector of the same direction and of length one, float32; zeros stay zeros."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return (vector / (length or 1)).astype(np.float32)


def _params(context: int, piece: int, threads: int) -> llama_cpp.llama_context_params:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context
    params.n_batch = params.n_ubatch = min(piece, context)
    params.n_threads = params.n_threads_batch = threads
    params.n_seq_max = 1
    params.embeddings = True
    return params
