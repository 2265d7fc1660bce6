"""What a training goes on from, and what it is held against: adapters, in the place of the one that learns."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.training.lora import Model


class Reference:
    """The weights that learn as they were, beside the base that all share: no second model in memory."""

    def __init__(self, model: Model) -> None:
        """Keep a copy of them as they are."""
        self._learning = [weight for weight in model.parameters() if weight.requires_grad]
        self._kept = [weight.detach().clone() for weight in self._learning]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the model compute with them, without gradients, dropout and noise."""
        self._swap()
        try:
            with torch.no_grad():
                yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for number, weight in enumerate(self._learning):
            weight.data, self._kept[number] = self._kept[number], weight.data
        torch.clear_autocast_cache()  # which may hold the others in 16 bit
