"""Loss of a GGUF on given tokens, and what it answers and how fast, by the llama.cpp that serves."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import llama_cpp
import numpy as np

from common.errors import UserError
from llama.batch import Batch
from llama.context import Context
from llama.cpus import usable_cpus
from llama.errors import RequestError
from llama.model import LlamaModel, Weights, load
from llama.turn import Piece, Turn
from llama.types import Message, Sampling
from pipeline.core.progress import shown
from pipeline.evaluation.answers import Answer, Messages, Reply
from pipeline.evaluation.loss import Row
from pipeline.models.chat import TODAY

CONTEXT = 4096  # tokens of a prompt and its answer; the server's own setting, too
SERVED = 4  # answers at once, the server's own setting
WARM_UP = "Hello"
SLOTS = 8  # questions at once: more of them share a pass over the weights, and each takes its part of the KV cache


def row_nats(source: Path | Weights, rows: Sequence[Row]) -> list[float]:
    """Return negative log-likelihood, in nats, of each row's marked tokens together.

    Args:
        source: the GGUF, or its weights.
        rows: token ids and, for each, 1 where it counts; the first token of a row never does.

    Raises:
        UserError: the file cannot be loaded.
    """
    longest = max(len(ids) for ids, _ in rows)
    return [nats for _, nats in each_row_nats(source, rows, longest)]


def each_row_nats(source: Path | Weights, rows: Sequence[Row], longest: int) -> Iterator[tuple[int, float]]:
    """Yield the number of each row and its nats, in order.

    Args:
        source: the GGUF, or its weights.
        rows: as of `row_nats`.
        longest: tokens of the longest row that the file is measured on, now or later.

    Raises:
        UserError: the file cannot be loaded.
    """
    with Context(source, longest) as context:
        for number, (ids, mask) in enumerate(shown(rows, "loss")):
            yield number, float(losses(context, ids, mask).sum())


def answer_together(source: Path | Weights, chats: Sequence[Messages], max_tokens: int, context: int) -> list[Reply]:
    """Return greedy replies to conversations, STREAMS at once, in order.

    Args:
        source: the GGUF, or its weights.
        chats: conversations that end with a question.
        max_tokens: of a reply.
        context: tokens that the longest conversation takes with its reply.

    Raises:
        UserError: the file cannot be loaded, or a conversation is not for it.
    """
    replies = dict(answer_each(source, chats, max_tokens, context))
    return [replies[number] for number in range(len(chats))]


def answer_each(
    source: Path | Weights, chats: Sequence[Messages], max_tokens: int, context: int
) -> Iterator[tuple[int, Reply]]:
    """Yield the number of each conversation and the reply, as it ends; arguments and errors as of `answer_together`."""
    with _engine(source, context, SLOTS) as batch:
        asked = [_turn(batch, chat, max_tokens) for chat in chats]
        numbered = {turn: (number, pieces) for number, (turn, pieces) in enumerate(asked)}
        for turn in batch.run_all(numbered):
            number, pieces = numbered[turn]
            yield number, _reply(pieces)


def answer_alone(source: Path | Weights, prompts: Sequence[str], max_tokens: int) -> list[Answer]:
    """Return greedy answers to prompts, one at a time, and their seconds: what one user of the chat server waits.

    Of a GGUF, or of its weights.

    Raises:
        UserError: the file cannot be loaded, or a prompt leaves no room for an answer.
    """
    answers: list[Answer] = []
    with _engine(source, CONTEXT, 1) as batch:
        batch.run(_turn(batch, [{"role": "user", "content": WARM_UP}], 1)[0])  # the first one reads the file
        for prompt in shown(prompts, "answering the prompts"):
            turn, pieces = _turn(batch, [{"role": "user", "content": prompt}], max_tokens)
            batch.run(turn)
            last = pieces[-1]
            times: Answer = {
                **_reply(pieces),
                "first_token_seconds": last.seconds - last.generating,
                "seconds": last.seconds,
                "tokens_per_second": last.tokens_per_second,
                "read": last.prompt - last.cached,
            }
            answers.append(times)
    return answers


def serving_memory(source: Path | Weights) -> int:
    """Return the bytes that the engine takes at the server's own settings, by llama.cpp's account of its buffers.

    Of a GGUF, or of its weights, which are in memory, and not mapped.

    Raises:
        UserError: the file cannot be loaded.
    """
    with closing(LlamaModel(source, CONTEXT, usable_cpus(), chats=False)) as model:
        return model.memory.total(SERVED)


def end_tokens(path: Path) -> frozenset[int]:
    """Return the token ids that end a GGUF's answers.

    Those that it names, and those that llama.cpp knows by their text.

    Raises:
        UserError: the file cannot be loaded.
    """
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = load(path, params)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    tokens = range(llama_cpp.llama_vocab_n_tokens(vocabulary))
    ends = frozenset(token for token in tokens if llama_cpp.llama_vocab_is_eog(vocabulary, token))
    llama_cpp.llama_model_free(model)
    return ends


def losses(context: Context, ids: Sequence[int], mask: Sequence[int]) -> np.ndarray:
    """Return negative log-likelihood of each marked token, float64 [marked tokens]; the first token never counts."""
    marked = [position for position in range(len(ids) - 1) if mask[position + 1]]
    parts = [
        _negative_log_likelihood(logits, [ids[position + 1] for position in positions])
        for positions, logits in context.logits(ids, marked)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


@contextmanager
def _engine(source: Path | Weights, context: int, slots: int) -> Iterator[Batch]:
    """Yield what serves the file, freed at the end."""
    with closing(Batch(LlamaModel(source, context, usable_cpus(), slots, TODAY))) as batch:
        yield batch


def _turn(batch: Batch, chat: Messages, max_tokens: int) -> tuple[Turn, list[Piece]]:
    """Return a question ready to be taken in, and where the pieces of its answer will be."""
    pieces: list[Piece] = []
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0, seed=None)
    name = batch.model.path.name
    turn = Turn(name, cast(list[Message], chat), sampling, lambda piece: pieces.append(cast(Piece, piece)))
    try:
        turn.prepare(batch.model, drop_oldest=False)
    except RequestError as error:
        asked = " ".join(chat[-1]["content"].split())
        raise UserError(f"{name} cannot be asked {asked[:60]!r}: {error}") from error
    return turn, pieces


def _reply(pieces: list[Piece]) -> Reply:
    return {"reply": "".join(piece.text for piece in pieces).strip(), "tokens": pieces[-1].tokens}


def _negative_log_likelihood(logits: np.ndarray, targets: Sequence[int]) -> np.ndarray:
    """Return it from logits [n, vocabulary] and n token ids.

    Float64, since a float32 sum over 128k terms loses digits.
    """
    wide = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a diverged model's are infinite, and then there is no likelihood
        wide -= wide.max(axis=1, keepdims=True)
    return np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(targets)), targets]
