"""Batches of like length, as large as the memory holds: sorting first leaves little padding."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch.nn.utils.rnn import pad_sequence

from common.errors import UserError
from pipeline.core.progress import shown

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# At once where no number is asked for, and tokens at once on a CPU, where more are no faster. 1B in float32 takes 2 GB
# for them.
AT_ONCE = 32
CPU_TOKENS = 16384


def each_in_batches(
    items: Sequence[Item],
    size: int | None,
    length: Callable[[Item], int],
    compute: Callable[[list[Item]], list[Result]],
    device: torch.device,
    label: str,
    most: int | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield each item's number with what `compute` gives for it, batch by batch.

    A batch that the GPU's memory does not hold is halved and tried again; the first such is said.

    Args:
        items: of any kind.
        size: items at once, at most; None for AT_ONCE.
        length: of an item, in tokens; those of like length go together, the longest first.
        compute: gives a result for each item of a batch.
        device: that it computes on.
        label: of the bar that shows the progress.
        most: tokens at once, at most, were all as long as the longest of a batch; None for no bound but a CPU's.

    Raises:
        UserError: the memory does not hold a single item.
    """
    logged = False

    def computed(batch: list[int]) -> list[Result]:
        nonlocal logged
        try:
            return compute([items[index] for index in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise UserError(
                    f"{label}: the GPU's free memory does not hold {length(items[batch[0]])} tokens at once; end what "
                    "else runs there, lower evaluate.max_length, or set runtime.device=cpu"
                ) from None
        # Out of the handler, which holds on to the memory of the failed try.
        if not logged:
            logger.info(f"{label}: the GPU's memory does not hold {len(batch)} at once; trying half as many")
            logged = True
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return computed(batch[:half]) + computed(batch[half:])

    bound = CPU_TOKENS if most is None and device.type == "cpu" else most
    batches = sorted_batches(range(len(items)), size or AT_ONCE, lambda index: length(items[index]), bound)
    for batch in shown(batches, label):
        yield from zip(batch, computed(batch), strict=True)


def sorted_batches(
    items: Sequence[Item], size: int, length: Callable[[Item], int], most: int | None = None
) -> list[list[Item]]:
    """Return all items, longest first, at most `size` in a batch and `most` tokens, padding included."""
    ordered = sorted(items, key=length, reverse=True)
    batches = []
    start = 0
    while start < len(ordered):
        fitting = size if most is None else min(size, most // max(1, length(ordered[start])))
        batches.append(ordered[start : start + max(1, fitting)])
        start += len(batches[-1])
    return batches


def padded(
    rows: Sequence[Sequence[int]], fill: int, device: torch.device | str, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows as one matrix, int64 [rows, longest], and 1 where it holds them.

    `left` pads before, for generation.
    """
    tensors = [torch.tensor(row) for row in rows]
    side = "left" if left else "right"
    matrix = pad_sequence(tensors, batch_first=True, padding_value=fill, padding_side=side)
    present = pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True, padding_side=side)
    return matrix.to(device), present.to(device)
