"""Loss and perplexity of a Transformers model on what the assistant says."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from pipeline.evaluation.batches import padded, sorted_batches
from pipeline.progress import shown

Conversation = tuple[Sequence[int], Sequence[int]]


@torch.inference_mode()
def measure_loss(model: Any, conversations: Sequence[Conversation], batch_size: int, pad: int) -> tuple[float, float]:
    """Mean negative log-likelihood in nats over all marked tokens, and conversations a second.

    Args:
        model: a causal language model, on its device.
        conversations: token ids and, for each, 1 where it counts.
        batch_size: conversations in one forward pass; those of like length go together.
        pad: the token id that fills up short rows.
    """
    total, count, start = 0.0, 0, time.perf_counter()
    batches = sorted_batches(conversations, batch_size, key=lambda conversation: len(conversation[0]))
    for batch in shown(batches, "loss on the test split"):
        ids, attention = padded([ids for ids, _ in batch], pad, model.device)
        counted, _ = padded([mask for _, mask in batch], 0, model.device)
        logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        total += (losses * counted[:, 1:]).sum().item()
        count += int(counted[:, 1:].sum().item())
    return total / count, len(conversations) / (time.perf_counter() - start)
