"""Batches of like length: sorting them first leaves little padding."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


def sorted_batches(items: Sequence[Item], size: int, key: Callable[[Item], Any]) -> list[list[Item]]:
    """All items, longest first, so that a batch too large for memory fails at once."""
    ordered = sorted(items, key=key, reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def padded(
    rows: Sequence[Sequence[int]], fill: int, device: Any, *, left: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as one matrix, int64 [rows, longest], and 1 where it holds them; `left` pads before, for generation."""
    width = max(map(len, rows))
    blank = [[0] * (width - len(row)) for row in rows]
    pairs = list(zip(rows, blank, strict=True))
    matrix = [[fill] * len(gap) + [*row] if left else [*row] + [fill] * len(gap) for row, gap in pairs]
    present = [gap + [1] * len(row) if left else [1] * len(row) + gap for row, gap in pairs]
    return torch.tensor(matrix, device=device), torch.tensor(present, device=device)
