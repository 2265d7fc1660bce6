"""Loss of a Transformers model on what the assistant says, row by row."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from pipeline.evaluation.batches import each_in_batches, padded
from pipeline.evaluation.kernels import attending_by, fused_norms, packs
from pipeline.models.attention import FLASH
from pipeline.models.heads import CHUNK, does_more

Row = tuple[Sequence[int], Sequence[int]]  # token ids and, for each, 1 where it counts

PACKED_TOKENS = 65536  # at once; a GPU is no faster with more


class Loss(NamedTuple):
    """How well a model says what was said."""

    mean: float  # nats a marked token, over all rows
    samples_per_second: float  # rows
    nats: list[float]  # of each row, summed over its marked tokens


def scored_tokens(row: Row) -> int:
    """Return marked tokens of a row; the first token is predicted from nothing, so it never counts."""
    return sum(row[1][1:])


def measure_loss(model: PreTrainedModel, rows: Sequence[Row], batch_size: int | None, pad: int) -> Loss:
    """Return negative log-likelihood of the marked tokens.

    Args:
        model: a causal language model, on its device.
        rows: token ids and, for each, 1 where it counts.
        batch_size: rows in one forward pass, at most; None for as many as the device is fast with.
        pad: the token id that fills up short rows.

    Raises:
        UserError: the GPU's memory does not hold a single row.
    """
    start = time.perf_counter()
    found = dict(each_nats(model, rows, batch_size, pad))
    seconds = time.perf_counter() - start
    nats = [found[number] for number in range(len(rows))]
    return Loss(sum(nats) / sum(map(scored_tokens, rows)), len(rows) / seconds, nats)


def each_nats(
    model: PreTrainedModel, rows: Sequence[Row], batch_size: int | None, pad: int
) -> Iterator[tuple[int, float]]:
    """Yield the number of each row and its nats, batch by batch; arguments and errors as of `measure_loss`."""
    return packed_nats(model, rows, batch_size) if packs(model) else padded_nats(model, rows, batch_size, pad)


def padded_nats(
    model: PreTrainedModel, rows: Sequence[Row], batch_size: int | None, pad: int
) -> Iterator[tuple[int, float]]:
    """Yield the nats of rows of like length side by side; arguments and errors as of `measure_loss`.

    Padding comes after a row's tokens, where none of them sees it: so no mask is needed, and the fastest attention will
    do.
    """
    own_head = does_more(model)

    @torch.inference_mode()
    def nats(batch: list[Row]) -> list[float]:
        ids, _ = padded([ids for ids, _ in batch], pad, model.device)
        counted, _ = padded([mask for _, mask in batch], 0, model.device)
        rows, positions = counted[:, 1:].nonzero(as_tuple=True)
        losses = token_nats(model, ids, {}, rows, positions, own_head)
        return sums(losses, rows, len(batch))

    return each_in_batches(rows, batch_size, lambda row: len(row[0]), nats, model.device, "loss")


def packed_nats(
    model: PreTrainedModel, rows: Sequence[Row], batch_size: int | None, attention: str = FLASH
) -> Iterator[tuple[int, float]]:
    """Yield the nats of rows end to end, without padding, as training has them; the same as `padded_nats` but rounding.

    FlashAttention tells them apart; it needs no plan for each shape, which cost more than the computation did.
    """
    own_head = does_more(model)

    @torch.inference_mode()
    def nats(batch: list[Row]) -> list[float]:
        lengths = [len(ids) for ids, _ in batch]
        ids = torch.tensor([*chain.from_iterable(ids for ids, _ in batch)]).to(model.device)
        counted = torch.tensor([*chain.from_iterable(mask for _, mask in batch)]).to(model.device)
        starts = torch.tensor([0, *accumulate(lengths)], device=model.device)
        numbers = torch.repeat_interleave(torch.tensor(lengths, device=model.device), output_size=len(ids))
        counted[starts[:-1]] = 0
        packing: dict[str, torch.Tensor | int] = {
            "position_ids": (torch.arange(len(ids), device=model.device) - starts[numbers])[None],
            "cu_seq_lens_q": starts.int(),
            "cu_seq_lens_k": starts.int(),
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
        }
        targets = counted.nonzero()[:, 0]
        losses = token_nats(model, ids[None], packing, torch.zeros_like(targets), targets - 1, own_head)
        return sums(losses, numbers[targets], len(batch))

    with attending_by(model, attention), fused_norms(model):
        yield from each_in_batches(
            rows, batch_size or len(rows), lambda row: len(row[0]), nats, model.device, "loss", most=PACKED_TOKENS
        )


def sums(losses: torch.Tensor, rows: torch.Tensor, count: int) -> list[float]:
    """Return the nats of each of `count` rows, given those of tokens and the row of each."""
    nats = torch.zeros(count, dtype=torch.float64, device=losses.device)
    return nats.index_add_(0, rows, losses.double()).tolist()


def token_nats(
    model: PreTrainedModel,
    ids: torch.Tensor,
    packing: Mapping[str, torch.Tensor | int],
    rows: torch.Tensor,
    positions: torch.Tensor,
    own_head: bool,
) -> torch.Tensor:
    """Return the nats of the tokens behind the given positions, from one forward pass.

    Logits are computed there alone and CHUNK of them at a time: all of 32 x 2048 over a vocabulary of 128k would be
    34 GB.

    Args:
        model: on its device.
        ids: int64 of shape (rows, tokens).
        packing: what tells the conversations of a packed row apart.
        rows: of each position.
        positions: of the token before each that counts.
        own_head: whether the model does more to logits than its head's product.
    """
    targets = ids[rows, positions + 1]
    head = model.get_output_embeddings()
    hidden: Any
    if own_head:
        hidden, head = model(input_ids=ids, **packing, use_cache=False).logits, torch.nn.Identity()
    else:
        hidden = model.get_decoder()(input_ids=ids, **packing, use_cache=False).last_hidden_state
    pieces = zip(rows.split(CHUNK), positions.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat(
        [cross_entropy(head(hidden[row, at]).float(), target, reduction="none") for row, at, target in pieces]
    )
