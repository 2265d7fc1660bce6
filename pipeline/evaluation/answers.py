"""Greedy answers of a Transformers model: many at once, or one at a time with its seconds.

Greedy is the likeliest token each time and nothing else, as from a GGUF (gguf_scores.py): a model's own
generation_config, which may ask for a repetition penalty, counts for the ends of an answer alone.

A reply has its text and its tokens, the end of the turn not counted. An answer has, besides, the seconds to its first
token and to its last, and tokens a second between these two: what the chat server says of its own (llama/turn.py).
"""

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, cast

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from pipeline.core.progress import shown
from pipeline.evaluation.batches import each_in_batches, padded
from pipeline.evaluation.continuous import answer_continuously
from pipeline.evaluation.kernels import packs
from pipeline.models.chat import prompt_ids

Messages = list[dict[str, str]]
LABEL = "asking the questions"


class Reply(TypedDict):
    """What a model says."""

    reply: str
    tokens: int


class Answer(Reply):
    """The same with its time, seconds from the question on."""

    first_token_seconds: float
    seconds: float
    tokens_per_second: float
    read: int  # tokens of the prompt that were not known from the one before


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Messages],
    max_new_tokens: int,
    batch_size: int | None,
    ends: Collection[int] = (),
) -> list[Reply]:
    """Return the reply to each conversation, in order.

    Args:
        model: on its device.
        tokenizer: the model's, with a padding token.
        chats: conversations that end with a question.
        max_new_tokens: of a reply.
        batch_size: conversations at once, at most; None for as many as the device is fast with.
        ends: token ids that end a reply besides the model's own, such as those of its GGUF.

    Raises:
        UserError: the GPU's memory does not hold a single conversation.
    """
    replies = dict(answer_each(model, tokenizer, chats, max_new_tokens, batch_size, ends))
    return [replies[number] for number in range(len(chats))]


def answer_each(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chats: Sequence[Messages],
    max_new_tokens: int,
    batch_size: int | None,
    ends: Collection[int] = (),
) -> Iterator[tuple[int, Reply]]:
    """Yield the number of each conversation and the reply, as they end; arguments and errors as of `answer_all`.

    On a GPU by continuous batching, where the model's attention allows; what that leaves out is asked in batches.
    """
    prompts = [prompt_ids(tokenizer, chat) for chat in chats]
    settings = greedy(model, tokenizer, max_new_tokens, ends)
    left = dict(enumerate(prompts))
    if prompts and packs(model):
        answered = answer_continuously(model, settings, prompts, batch_size)
        for number, tokens in shown(answered, LABEL, len(prompts)):
            del left[number]
            yield number, _reply(tokenizer, tokens, settings)
    numbers = list(left)
    for at, tokens in answer_in_batches(model, settings, list(left.values()), batch_size):
        yield numbers[at], _reply(tokenizer, tokens, settings)


def answer_in_batches(
    model: PreTrainedModel, settings: GenerationConfig, prompts: Sequence[list[int]], batch_size: int | None
) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of each prompt and the tokens that follow it, padding behind the end of the turn included."""

    def generated(batch: list[list[int]]) -> list[list[int]]:
        return _generate(model, settings, batch)

    return each_in_batches(prompts, batch_size, len, generated, model.device, LABEL)


def answer_timed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    ends: Collection[int] = (),
) -> list[Answer]:
    """Return the answer to each prompt, asked alone; arguments as of `answer_all`."""
    settings = greedy(model, tokenizer, max_new_tokens, ends)
    answers: list[Answer] = []
    for prompt in shown(prompts, "answering the prompts"):
        ids = prompt_ids(tokenizer, [{"role": "user", "content": prompt}])
        clock, start = _Clock(), time.perf_counter()
        reply = _reply(tokenizer, _generate(model, settings, [ids], clock)[0], settings)
        seconds, first = time.perf_counter() - start, clock.first - start
        speed = max(reply["tokens"] - 1, 0) / (seconds - first)
        times: Answer = {
            **reply,
            "first_token_seconds": first,
            "seconds": seconds,
            "tokens_per_second": speed,
            "read": len(ids),
        }
        answers.append(times)
    return answers


def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, ends: Collection[int] = ()
) -> GenerationConfig:
    """Return the likeliest token each time, up to an end: the model's own ends, its tokenizer's, and `ends`."""
    own = model.generation_config.eos_token_id
    named = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id, *ends} - {None}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(named) or None,
        pad_token_id=tokenizer.pad_token_id,
    )


class _Clock(BaseStreamer):
    """When the first token was there; it comes after the prompt, and on the CPU."""

    def __init__(self) -> None:
        self._puts, self.first = 0, 0.0

    def put(self, value: Any) -> None:
        self._puts += 1
        if self._puts == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        pass


@torch.inference_mode()
def _generate(
    model: PreTrainedModel, settings: GenerationConfig, prompts: list[list[int]], clock: _Clock | None = None
) -> list[list[int]]:
    """Return the tokens that follow each prompt, with padding behind the end of the turn."""
    ids, attention = padded(prompts, settings.pad_token_id, model.device, left=True)
    with _generating_by(model, settings):
        output = cast(Any, model).generate(  # whose annotation knows no such model
            input_ids=ids, attention_mask=attention, generation_config=settings, streamer=clock
        )
    rows: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return rows


@contextmanager
def _generating_by(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Put the model's own settings aside: Transformers fills with them whatever passed ones leave open (5.17)."""
    own, model.generation_config = model.generation_config, settings
    try:
        yield
    finally:
        model.generation_config = own


def up_to_end(tokens: list[int], settings: GenerationConfig) -> list[int]:
    """Return an answer's tokens up to the first that ends the turn."""
    ends = settings.eos_token_id or []
    return tokens[: next((at for at, token in enumerate(tokens) if token in ends), len(tokens))]


def _reply(tokenizer: PreTrainedTokenizerBase, tokens: list[int], settings: GenerationConfig) -> Reply:
    tokens = up_to_end(tokens, settings)
    # As they are: some tokenizers take spaces before punctuation away when they decode, which llama.cpp never does.
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {"reply": str(text).strip(), "tokens": len(tokens)}
