"""Loss of a GGUF on given tokens, and the speed at which it answers, both by the llama.cpp that serves."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import llama_cpp
import numpy as np

from pipeline.errors import UserError
from serve.answer import Piece, Turn
from serve.batch import Batch
from serve.cpus import usable_cpus
from serve.errors import RequestError
from serve.errors import UserError as ServeError
from serve.limits import Message, Sampling
from serve.llama import LlamaModel, load

CHUNK = 128  # tokens decoded at once; 128 rows of logits over a vocabulary of 128k take 64 MiB


def loss(path: Path, conversations: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float:
    """Mean negative log-likelihood, in nats, of the marked tokens of all conversations.

    Args:
        path: the GGUF.
        conversations: token ids and, for each, 1 where it counts; the first token of a conversation never does.

    Raises:
        UserError: the file cannot be loaded.
    """
    longest = max(len(ids) for ids, _ in conversations)
    with closing(_Context(path, longest)) as context:
        losses = np.concatenate([context.losses(ids, mask) for ids, mask in conversations])
    return float(losses.mean())


def tokens_per_second(path: Path, prompts: Sequence[str], max_tokens: int) -> float:
    """Greedy tokens a second over answers to `prompts`, one at a time, their reading left out.

    Raises:
        UserError: the file cannot be loaded, or a prompt leaves no room for an answer.
    """
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0, seed=None)
    tokens, seconds = 0, 0.0
    try:
        with closing(Batch(LlamaModel(path, context=4096, threads=usable_cpus()))) as batch:
            for prompt in prompts:
                pieces: list[Piece | Exception] = []
                turn = Turn(path.name, [Message(role="user", content=prompt)], sampling, pieces.append)
                turn.prepare(batch.model, drop_oldest=False)
                batch.run(turn)
                last = cast(Piece, pieces[-1])
                tokens, seconds = tokens + max(last.tokens - 1, 0), seconds + last.generating
    except ServeError as error:
        raise UserError(str(error)) from error
    except RequestError as error:
        raise UserError(f"{path.name} cannot answer one of evaluate.prompts: {error}") from error
    return tokens / seconds if tokens else 0.0


class _Context:
    """A model loaded for scoring: one sequence, logits where they are asked for."""

    def __init__(self, path: Path, length: int) -> None:
        try:
            self._model = load(path, llama_cpp.llama_model_default_params())
        except ServeError as error:
            raise UserError(str(error)) from error
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = length
        params.n_batch = params.n_ubatch = CHUNK
        params.n_threads = params.n_threads_batch = usable_cpus()
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if self._context is None:
            llama_cpp.llama_model_free(self._model)
            raise UserError(f"no memory to score {length} tokens at once with {path.name}; lower evaluate.max_length")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)

    def losses(self, ids: Sequence[int], mask: Sequence[int]) -> np.ndarray:
        """Negative log-likelihood of each marked token, float64 [marked tokens]."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        parts = []
        for start in range(0, len(ids) - 1, CHUNK):
            positions = range(start, min(start + CHUNK, len(ids) - 1))
            wanted = [position for position in positions if mask[position + 1]]
            logits = self._decode(ids, positions, set(wanted))
            if wanted:
                parts.append(_negative_log_likelihood(logits, [ids[position + 1] for position in wanted]))
        return np.concatenate(parts) if parts else np.empty(0)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _decode(self, ids: Sequence[int], positions: range, wanted: set[int]) -> np.ndarray:
        """Decodes the tokens at `positions`; logits, float32 [wanted, vocabulary]."""
        batch: Any = self._batch
        batch.n_tokens = len(positions)
        for slot, position in enumerate(positions):
            batch.token[slot] = ids[position]
            batch.pos[slot] = position
            batch.n_seq_id[slot] = 1
            batch.seq_id[slot][0] = 0
            batch.logits[slot] = position in wanted
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        if not wanted:
            return np.empty((0, self._vocabulary), dtype=np.float32)
        logits = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(logits, shape=(len(wanted), self._vocabulary))


def _negative_log_likelihood(logits: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """From logits [n, vocabulary] and n token ids; float64, since a float32 sum over 128k terms loses digits."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(targets)), targets]
