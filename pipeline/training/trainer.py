"""TRL's trainer with one change: rows of like length share a micro-batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from trl import SFTTrainer


class SortedWithinUpdates(Sampler[int]):
    """A new random order each epoch, in which the rows of one update stand longest first.

    The micro-batches of an update then need little padding, and what an update learns from is as random as without. (To
    group by length over many updates, as Transformers offers, puts like tasks together: the starter lost two points.)
    """

    def __init__(self, lengths: Sequence[int], update_size: int, seed: int) -> None:
        """For rows of these `lengths` in tokens, `update_size` of them an update."""
        self.lengths = lengths
        self.update_size = update_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, also when it resumes: the order follows from seed and epoch alone."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        for start in range(0, len(order), self.update_size):
            yield from sorted(order[start : start + self.update_size], key=self.lengths.__getitem__, reverse=True)

    def __len__(self) -> int:
        return len(self.lengths)


class Trainer(SFTTrainer):
    """SFTTrainer that draws its rows by SortedWithinUpdates."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        update_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        return SortedWithinUpdates([len(ids) for ids in rows["input_ids"]], update_size, args.seed)
