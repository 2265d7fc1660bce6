"""Greedy answers of a Transformers model, in batches or one at a time with its seconds."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pipeline.evaluation.batches import padded, sorted_batches
from pipeline.progress import shown

Messages = list[dict[str, str]]


def answer_all(
    model: Any, tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages], max_new_tokens: int, batch_size: int
) -> list[str]:
    """The reply to each conversation, in order."""
    prompts = [(index, prompt_ids(tokenizer, chat)) for index, chat in enumerate(chats)]
    replies: dict[int, str] = {}
    for batch in shown(sorted_batches(prompts, batch_size, key=lambda pair: len(pair[1])), "asking the questions"):
        generated = _generate(model, tokenizer, [ids for _, ids in batch], max_new_tokens)
        replies.update(zip([index for index, _ in batch], map(_text(tokenizer), generated), strict=True))
    return [replies[index] for index in range(len(chats))]


def answer_timed(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> list[dict[str, Any]]:
    """For each prompt, asked alone: the reply, its seconds, and tokens a second."""
    timed = []
    for prompt in shown(prompts, "answering the prompts"):
        ids = prompt_ids(tokenizer, [{"role": "user", "content": prompt}])
        start = time.perf_counter()
        generated = _generate(model, tokenizer, [ids], max_new_tokens)[0]
        seconds = time.perf_counter() - start
        tokens = sum(token != tokenizer.pad_token_id for token in generated)
        reply = {"reply": _text(tokenizer)(generated), "seconds": round(seconds, 3)}
        timed.append({**reply, "tokens_per_second": round(tokens / seconds, 1)})
    return timed


def prompt_ids(tokenizer: PreTrainedTokenizerBase, chat: Messages) -> list[int]:
    """A conversation as token ids, up to where the assistant is to speak."""
    encoded: Any = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


@torch.inference_mode()
def _generate(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int
) -> list[list[int]]:
    ids, attention = padded(prompts, tokenizer.pad_token_id, model.device, left=True)
    output = model.generate(
        input_ids=ids,
        attention_mask=attention,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    return output[:, ids.shape[1] :].tolist()


def _text(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    return lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
