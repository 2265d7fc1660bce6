"""Answers that are compared or judged as what updates learn from, and conversations that are replayed beside them."""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

import torch

from pipeline.training.updates import IGNORED, Conversations, Inputs, Layout, MicroBatch, spread

Labelled = Mapping[str, Sequence[Sequence[int]]]  # `input_ids` and `labels`


class Side(IntEnum):
    """What an answer is."""

    CHOSEN = 0
    REJECTED = 1
    REPLAYED = 2


class Answer(NamedTuple):
    """An answer behind its prompt: the tokenized rows that it makes, one for nearly all templates."""

    side: Side
    rows: Sequence[int]


class Comparisons(Conversations):
    """Pairs of answers or judgements of one, which are a row of an update each; others are replayed conversations.

    Rows are numbered so: comparisons first. An epoch learns from each comparison once, in updates each of which has the
    same share of replayed ones, drawn anew as often as that takes.
    """

    def __init__(
        self,
        answers: Labelled,
        comparisons: Sequence[Sequence[Answer]],
        layout: Layout,
        pad_token_id: int,
        replayed: Labelled | None = None,
        share: float = 0.0,
        mismatched: bool = False,
    ) -> None:
        """Take token ids and labels of all answers, and which of them each comparison has.

        Args:
            answers: as `Conversations` takes conversations.
            comparisons: pairs, or judgements of one answer each; a pair's chosen one first.
            layout: of the answers.
            pad_token_id: the tokenizer's.
            replayed: conversations beside them.
            share: of the rows of an update that those are, 0 to 1.
            mismatched: whether updates begin with the judged answers behind each other's prompts.
        """
        beside = replayed or {"input_ids": [], "labels": []}
        super().__init__({key: [*answers[key], *beside[key]] for key in ("input_ids", "labels")}, layout, pad_token_id)
        first = len(self.ids) - len(beside["input_ids"])
        self.compared = len(comparisons)
        self.answers = [*comparisons, *([Answer(Side.REPLAYED, [row])] for row in range(first, len(self.ids)))]
        self.share = share if replayed else 0.0
        self.mismatched = mismatched
        self.targets = self.supervised  # of each tokenized row; lengths and supervised tokens are those of an update's
        self.lengths, self.supervised = (
            [sum(of[row] for answer in answers for row in answer.rows) for answers in self.answers]
            for of in (self.lengths, self.targets)
        )

    def __len__(self) -> int:
        return len(self.answers)

    def parts_of(self, update_size: int) -> tuple[int, int]:
        """Return how many comparisons an update has, and how many conversations: one at least, where there are any."""
        replayed = min(max(1, round(self.share * update_size)), update_size - 1) if self.share else 0
        return update_size - replayed, replayed

    def rows_of_epoch(self, update_size: int) -> int:
        """Return rows that an epoch learns from, in updates of so many."""
        compared, replayed = self.parts_of(update_size)
        whole, left = divmod(self.compared, compared)
        return whole * update_size + left + round(replayed * left / compared)

    def epoch(self, update_size: int, generator: torch.Generator) -> Iterator[list[int]]:
        """Yield the rows of each of an epoch's updates, in a random order."""
        order = torch.randperm(self.compared, generator=generator).tolist()
        replayed = self._again_and_again(generator)
        compared, beside = self.parts_of(update_size)
        for start in range(0, len(order), compared):
            rows = order[start : start + compared]
            yield [*rows, *islice(replayed, round(beside * len(rows) / compared))]

    def split(self, rows: Sequence[int], process: int = 0, processes: int = 1) -> list[MicroBatch]:
        """Return the part of one process in an update (or evaluation) over `rows`; mismatched answers come first."""
        compared, replayed = (
            [row for row in rows if (row < self.compared) is is_compared] for is_compared in (True, False)
        )
        supervised = sum(self.supervised[row] for row in replayed)
        parts = [
            part._replace(supervised=supervised, compared=len(compared), replayed=len(replayed))
            for part in super().split(rows, process, processes)
        ]
        if not self.mismatched:
            return parts
        partners = dict(zip(compared, [*compared[-1:], *compared[:-1]], strict=True))
        lengths = {row: len(self.mismatch(row, partner)[0]) for row, partner in partners.items()}
        mine = spread(compared, lengths, self.layout, processes)[process]
        return [*(parts[0]._replace(rows=rows, partners=partners) for rows in mine), *parts]

    def __getitem__(self, batch: MicroBatch) -> Inputs:
        """Return what the model takes, with `counts`, and which answers are chosen, rejected and replayed."""
        answers = [answer for row in batch.rows for answer in self.answers[row]]
        if batch.partners is None:
            sequences = [(self.ids[row], self.labels[row]) for answer in answers for row in answer.rows]
            counts = [sum(self.targets[row] for row in answer.rows) for answer in answers]
        else:
            sequences = [self.mismatch(row, batch.partners[row]) for row in batch.rows]
            counts = [int((labels != IGNORED).sum()) for _, labels in sequences]
        inputs = self.inputs(sequences, batch)
        places = ([at for at, answer in enumerate(answers) if answer.side is side] for side in Side)
        chosen, rejected, replayed = (torch.tensor(place, dtype=torch.long) for place in places)
        inputs |= {"counts": torch.tensor(counts, dtype=torch.long), "chosen": chosen, "rejected": rejected}
        inputs |= {"replayed": replayed, "compared_rows": batch.compared, "replayed_rows": batch.replayed}
        return inputs | {"mismatched": batch.partners is not None}

    def mismatch(self, row: int, partner: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prompt of a judgement with another's answer behind it, which is cut as any; and its labels."""
        (asked, begins), (ids, answer) = (self._first_row(number) for number in (row, partner))
        labels = torch.cat([torch.full_like(self.ids[asked][:begins], IGNORED), self.labels[ids][answer:]])
        longest = self.layout.max_length
        return torch.cat([self.ids[asked][:begins], self.ids[ids][answer:]])[:longest], labels[:longest]

    def _first_row(self, number: int) -> tuple[int, int]:
        """Return the first tokenized row of a judgement, and where its answer begins."""
        row = self.answers[number][0].rows[0]
        return row, int((self.labels[row] != IGNORED).nonzero()[0])

    def _again_and_again(self, generator: torch.Generator) -> Iterator[int]:
        count = len(self.answers) - self.compared
        while count:
            yield from (self.compared + torch.randperm(count, generator=generator)).tolist()
