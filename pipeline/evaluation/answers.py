"""Greedy answers of a Transformers model: many in batches, or one at a time with its seconds.

A reply has its text and its tokens, the end of the turn not counted. An answer has, besides, the seconds to its first
token and to its last, and tokens a second between these two: what the chat server says of its own (serve/answer.py).
"""

import time
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from pipeline.evaluation.batches import in_batches, padded
from pipeline.progress import shown
from pipeline.training.chat import prompt_ids

Messages = list[dict[str, str]]


class Reply(TypedDict):
    """What a model says."""

    reply: str
    tokens: int


class Answer(Reply):
    """The same with its time, seconds from the question on."""

    first_token_seconds: float
    seconds: float
    tokens_per_second: float


def answer_all(
    model: Any, tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], max_new_tokens: int, batch_size: int
) -> list[Reply]:
    """The reply to each conversation, in order.

    Raises:
        UserError: the GPU's memory does not hold a single conversation.
    """
    prompts = [prompt_ids(tokenizer, chat) for chat in chats]

    def replies(batch: list[list[int]]) -> list[Reply]:
        return [_reply(tokenizer, tokens) for tokens in _generate(model, tokenizer, batch, max_new_tokens)]

    return in_batches(prompts, batch_size, len, replies, model.device, "asking the questions")


def answer_timed(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> list[Answer]:
    """For each prompt, asked alone: the answer."""
    answers: list[Answer] = []
    for prompt in shown(prompts, "answering the prompts"):
        ids = prompt_ids(tokenizer, [{"role": "user", "content": prompt}])
        clock, start = _Clock(), time.perf_counter()
        reply = _reply(tokenizer, _generate(model, tokenizer, [ids], max_new_tokens, clock)[0])
        seconds, first = time.perf_counter() - start, clock.first - start
        speed = max(reply["tokens"] - 1, 0) / (seconds - first)
        answers.append({**reply, "first_token_seconds": first, "seconds": seconds, "tokens_per_second": speed})
    return answers


class _Clock(BaseStreamer):
    """When the first token was there; it comes after the prompt, and on the CPU."""

    def __init__(self) -> None:
        self._given, self.first = 0, 0.0

    def put(self, value: Any) -> None:
        self._given += 1
        if self._given == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        pass


@torch.inference_mode()
def _generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    clock: _Clock | None = None,
) -> list[list[int]]:
    """The tokens that follow each prompt, up to the end of the turn."""
    ids, attention = padded(prompts, tokenizer.pad_token_id, model.device, left=True)
    output = model.generate(
        input_ids=ids,
        attention_mask=attention,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        pad_token_id=tokenizer.pad_token_id,
        streamer=clock,
    )
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    rows = output[:, ids.shape[1] :].tolist()
    return [row[: next((at for at, token in enumerate(row) if token in ends), len(row))] for row in rows]


def _reply(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> Reply:
    return {"reply": str(tokenizer.decode(tokens, skip_special_tokens=True)).strip(), "tokens": len(tokens)}
