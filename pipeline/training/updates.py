"""Updates: which conversations one learns from, and how they go through the model in micro-batches.

An update learns from the same conversations however it is laid out: padded or packed, in one micro-batch or many, on
one GPU or several. Layout changes speed and memory, and of the result the last digits alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, Required, Self, TypedDict

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

IGNORED = -100  # the label of tokens that the loss leaves out

Lengths = Sequence[int] | Mapping[int, int]  # tokens of each row


@dataclass(frozen=True)
class Layout:
    """How conversations become micro-batches."""

    rows: int  # conversations at once; packed, as many tokens as so many of full length have
    packed: bool  # end to end in one row, each attending to itself alone; else a padded row each
    max_length: int  # tokens of the longest conversation
    few_counts: bool = False  # a packed row has a multiple of 16 of them, for kernels planned for each number
    together: int = 1  # conversations that are one row of an update, as the two of a pair

    @property
    def row_tokens(self) -> int:
        """Tokens of one row at most."""
        return self.together * self.max_length

    @property
    def capacity(self) -> int:
        """Tokens of a packed micro-batch at most."""
        return self.rows * self.row_tokens


class MicroBatch(NamedTuple):
    """Some conversations of an update, with what the whole of it has on all processes."""

    rows: list[int]
    supervised: int  # tokens that the update's loss is the mean of
    tokens: int  # that are no padding
    compared: int = 0  # rows that compare or judge answers
    replayed: int = 0  # and those beside them
    partners: Mapping[int, int] | None = None  # whose answers stand behind the rows' prompts, in the place of their own


class Inputs(TypedDict, total=False):
    """A micro-batch as tensors."""

    input_ids: Required[torch.Tensor]
    labels: Required[torch.Tensor]
    attention_mask: torch.Tensor  # of padded rows
    position_ids: torch.Tensor  # of a packed one, as all that follows
    cu_seq_lens_q: torch.Tensor
    cu_seq_lens_k: torch.Tensor
    max_length_q: int
    max_length_k: int
    num_items_in_batch: int  # in the update, as `tokens`
    tokens: int
    positions: torch.Tensor
    targets: torch.Tensor
    counts: torch.Tensor  # targets of each answer, where answers are compared, as all that follows
    chosen: torch.Tensor  # which of the answers are
    rejected: torch.Tensor
    replayed: torch.Tensor
    compared_rows: int  # in the update
    replayed_rows: int
    mismatched: bool


def micro_batches(longest_first: Sequence[int], lengths: Lengths, layout: Layout) -> list[list[int]]:
    """Split conversations into as few micro-batches as hold them."""
    if not layout.packed:
        starts = range(0, len(longest_first), layout.rows)
        return [list(longest_first[start : start + layout.rows]) for start in starts]
    count = -(-sum(lengths[row] for row in longest_first) // layout.capacity)
    while True:
        bins = balanced(longest_first, lengths, count)
        if all(sum(lengths[row] for row in rows) <= layout.capacity for rows in bins):
            return [rows for rows in bins if rows]
        count += 1


def balanced(longest_first: Sequence[int], lengths: Lengths, count: int) -> list[list[int]]:
    """Spread conversations over `count` groups of about as many tokens: each to the one that has fewest."""
    groups: list[list[int]] = [[] for _ in range(count)]
    totals = [0] * count
    for row in longest_first:
        least = totals.index(min(totals))
        groups[least].append(row)
        totals[least] += lengths[row]
    return groups


def spread(rows: Sequence[int], lengths: Lengths, layout: Layout, processes: int) -> list[list[list[int]]]:
    """Return the micro-batches of each process."""
    longest_first = sorted(rows, key=lengths.__getitem__, reverse=True)
    return [micro_batches(group, lengths, layout) for group in balanced(longest_first, lengths, processes)]


class Updates(Sampler[list[MicroBatch]]):
    """The updates of an epoch, as micro-batches for one of several processes; a new random order each epoch.

    What an update learns from follows from seed and epoch alone. (To group by length over many updates, as Transformers
    offers, puts like tasks together: the starter lost two points.)
    """

    def __init__(
        self, conversations: "Conversations", update_size: int, seed: int, process: int = 0, processes: int = 1
    ) -> None:
        """With `update_size` conversations an update, for the process of that index."""
        self.conversations = conversations
        self.update_size = update_size
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer, also when it resumes."""
        self.epoch = epoch

    def rows(self) -> Iterator[list[int]]:
        """Return the conversations of each update, on all processes."""
        return self.conversations.epoch(self.update_size, torch.Generator().manual_seed(self.seed + self.epoch))

    def __iter__(self) -> Iterator[list[MicroBatch]]:
        for rows in self.rows():
            yield self.conversations.split(rows, self.process, self.processes)

    def __len__(self) -> int:
        return -(-self.conversations.rows_of_epoch(self.update_size) // self.update_size)


class Conversations(Dataset[Inputs]):
    """Tokenized conversations, read as the tensors of a micro-batch."""

    def __init__(self, rows: Mapping[str, Sequence[Sequence[int]]], layout: Layout, pad_token_id: int) -> None:
        """Take a mapping with the token ids of each as `input_ids` and their `labels`."""
        self.ids = [torch.tensor(ids) for ids in rows["input_ids"]]
        self.labels = [torch.tensor(labels) for labels in rows["labels"]]
        for labels in self.labels:
            labels[0] = IGNORED  # predicted from nothing
        self.lengths = [len(ids) for ids in self.ids]
        self.supervised = [int((labels != IGNORED).sum()) for labels in self.labels]
        self.layout = layout
        self.pad_token_id = pad_token_id

    def laid_out(self, layout: Layout) -> Self:
        """Return the same conversations, of the same tensors, in another layout."""
        other = copy(self)
        other.layout = layout
        return other

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of_epoch(self, update_size: int) -> int:
        """Return rows that an epoch learns from, in updates of so many."""
        return len(self)

    def epoch(self, update_size: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Yield the rows of each of an epoch's updates, in a random order."""
        order = torch.randperm(len(self), generator=generator).tolist()
        for start in range(0, len(order), update_size):
            yield order[start : start + update_size]

    def split(self, rows: Sequence[int], process: int = 0, processes: int = 1) -> list[MicroBatch]:
        """Return the part of one process in an update (or evaluation) over `rows`."""
        parts = spread(rows, self.lengths, self.layout, processes)
        # All take as many steps, some without rows: weights in shards are gathered in each.
        mine = parts[process] + [[]] * (max(map(len, parts)) - len(parts[process]))
        supervised, tokens = (sum(of[row] for row in rows) for of in (self.supervised, self.lengths))
        return [MicroBatch(part, supervised, tokens) for part in mine]

    def __getitem__(self, batch: MicroBatch) -> Inputs:
        """Return what the model takes, with `num_items_in_batch` and `tokens` of the update.

        `targets` are the supervised token ids, `positions` where each is predicted, in the rows laid end to end.
        """
        return self.inputs([(self.ids[row], self.labels[row]) for row in batch.rows], batch)

    def inputs(self, sequences: Sequence[Sequence[torch.Tensor]], batch: MicroBatch) -> Inputs:
        """Return the same of token ids and their labels."""
        ids, labels = ([sequence[part] for sequence in sequences] for part in (0, 1))
        if not sequences:
            ids, labels = [self.ids[0]], [torch.full_like(self.labels[0], IGNORED)]
        inputs = self.one_row(ids, labels) if self.layout.packed else self.padded(ids, labels)
        targets = inputs["labels"][:, 1:].flatten()
        # Positions are found here, since to look for them on a GPU waits for all that it has been given to do.
        supervised = (targets != IGNORED).nonzero()[:, 0]
        rows = supervised // (inputs["labels"].shape[1] - 1)
        inputs |= {"num_items_in_batch": batch.supervised, "tokens": batch.tokens}
        inputs |= {"positions": supervised + rows, "targets": targets[supervised]}
        return inputs

    def shortest(self) -> Inputs:
        """Return the shortest conversation of which something is learnt, alone."""
        learns = (row for row, labels in enumerate(self.labels) if (labels != IGNORED).any())
        row = min(learns, key=lambda row: len(self.ids[row]))
        count = int((self.labels[row] != IGNORED).sum())
        return self.inputs([(self.ids[row], self.labels[row])], MicroBatch([row], count, len(self.ids[row])))

    def padded(self, ids: list[torch.Tensor], labels: list[torch.Tensor]) -> Inputs:
        """Return a row for each conversation: `input_ids`, `labels`, `attention_mask` of shape (rows, longest)."""
        pad = torch.nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        }

    def one_row(self, ids: list[torch.Tensor], labels: list[torch.Tensor]) -> Inputs:
        """Return all conversations in one row: `input_ids`, `labels`, `position_ids` of shape (1, tokens).

        Positions start anew with each; `cu_seq_lens_*` has where each begins and, last, the row's end. Up to a multiple
        of 64, which kernels take well, padding is one conversation more, without a label.
        """
        lengths = [len(row) for row in ids]
        padding = -sum(lengths) % 64
        if padding:
            ids = [*ids, torch.full((padding,), self.pad_token_id)]
            labels = [*labels, torch.full((padding,), IGNORED)]
            lengths.append(padding)
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        if self.layout.few_counts:  # conversations without a token, up to a multiple of 16
            starts = torch.nn.functional.pad(starts, (0, -len(lengths) % 16), value=int(starts[-1]))
        longest = max(self.layout.max_length, padding)
        return {
            "input_ids": torch.cat(ids)[None],
            "labels": torch.cat(labels)[None],
            "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
            "cu_seq_lens_q": starts,
            "cu_seq_lens_k": starts,
            "max_length_q": longest,
            "max_length_k": longest,
        }


class UpdateLoader(DataLoader[Inputs]):
    """Reads updates one by one; `set_epoch` reaches their order."""

    def __init__(self, conversations: Conversations, updates: Updates, pin: bool) -> None:
        """With `pin`, in memory that a GPU reads while it computes."""
        super().__init__(conversations, batch_sampler=updates, collate_fn=list, pin_memory=pin)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer at the beginning of each."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
