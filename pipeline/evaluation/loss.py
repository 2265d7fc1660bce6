"""Loss of a Transformers model on what the assistant says, row by row."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from pipeline.evaluation.batches import each_in_batches, padded
from pipeline.models.heads import CHUNK, does_more

Row = tuple[Sequence[int], Sequence[int]]  # token ids and, for each, 1 where it counts


class Loss(NamedTuple):
    """How well a model says what was said."""

    mean: float  # nats a marked token, over all rows
    samples_per_second: float  # rows
    nats: list[float]  # of each row, summed over its marked tokens


def scored_tokens(row: Row) -> int:
    """Return marked tokens of a row; the first token is predicted from nothing, so it never counts."""
    return sum(row[1][1:])


def measure_loss(model: PreTrainedModel, rows: Sequence[Row], batch_size: int, pad: int) -> Loss:
    """Return negative log-likelihood of the marked tokens.

    Args:
        model: a causal language model, on its device.
        rows: token ids and, for each, 1 where it counts.
        batch_size: rows in one forward pass, at most.
        pad: the token id that fills up short rows.

    Raises:
        UserError: the GPU's memory does not hold a single row.
    """
    start = time.perf_counter()
    found = dict(each_nats(model, rows, batch_size, pad))
    seconds = time.perf_counter() - start
    nats = [found[number] for number in range(len(rows))]
    return Loss(sum(nats) / sum(map(scored_tokens, rows)), len(rows) / seconds, nats)


def each_nats(model: PreTrainedModel, rows: Sequence[Row], batch_size: int, pad: int) -> Iterator[tuple[int, float]]:
    """Yield the number of each row and its nats, batch by batch; arguments and errors as of `measure_loss`."""
    own_head = does_more(model)

    def nats(batch: list[Row]) -> list[float]:
        return batch_nats(model, batch, pad, own_head)

    return each_in_batches(rows, batch_size, lambda row: len(row[0]), nats, model.device, "loss")


@torch.inference_mode()
def batch_nats(model: PreTrainedModel, batch: Sequence[Row], pad: int, own_head: bool) -> list[float]:
    """Return the nats of each row, in one forward pass.

    Logits are computed at marked positions alone and CHUNK of them at a time: all of 32 x 2048 over a vocabulary of
    128k would be 34 GB. Padding comes after a row's tokens, where none of them sees it: so no mask is needed, and the
    fastest attention will do.
    """
    ids, _ = padded([ids for ids, _ in batch], pad, model.device)
    counted, _ = padded([mask for _, mask in batch], 0, model.device)
    rows, positions = counted[:, 1:].nonzero(as_tuple=True)
    targets = ids[rows, positions + 1]
    pieces = zip(_logits(model, ids, rows, positions, own_head), targets.split(CHUNK), strict=True)
    losses = torch.cat([cross_entropy(logits.float(), targets, reduction="none") for logits, targets in pieces])
    nats = torch.zeros(len(batch), dtype=torch.float64, device=model.device)
    return nats.index_add_(0, rows, losses.double()).tolist()


def _logits(
    model: PreTrainedModel, ids: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, own_head: bool
) -> Iterator[torch.Tensor]:
    """Yield the logits at each row's position, [at most CHUNK, vocabulary] at a time."""
    head = model.get_output_embeddings()
    hidden: Any
    if own_head:  # it does more to logits than its head's product
        hidden, head = model(input_ids=ids, use_cache=False).logits, torch.nn.Identity()
    else:
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    for row, position in zip(rows.split(CHUNK), positions.split(CHUNK), strict=True):
        yield head(hidden[row, position])
