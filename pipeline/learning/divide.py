"""Splits of which no two have a row of one visitor, or of one conversation."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from common.words import counted
from pipeline.core.config import LearnSettings
from pipeline.data.components import Components
from pipeline.data.split import seeded
from pipeline.learning.sources import NothingToLearn
from pipeline.learning.standing import Standing

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")  # the last is held out for judging


def divide(rows: Sequence[Standing], settings: LearnSettings) -> dict[Split, list[Standing]]:
    """Return the rows of each split.

    What visitors and conversations tie together goes where the hash of its least visitor is, so that those who are
    held out stay so as more is said. Where a split has none by that, the next in the order of the hashes is its.

    Raises:
        NothingToLearn: too few visitors for three splits.
    """
    groups = _tied(rows)
    if len(groups) < len(SPLITS):
        visitors = len({row.statement.visitor for row in rows})
        raise NothingToLearn(
            f"what is said comes from {counted(visitors, 'visitor')}, of whom conversations tie some together: that is "
            f"{counted(len(groups), 'part')}, and three splits take 3 at least; wait for more"
        )
    places = sorted((_place(settings.seed, [rows[number] for number in group]), group) for group in groups)
    chosen: dict[Split, list[list[int]]] = {split: [] for split in SPLITS}
    for place, group in places:
        chosen[_split(place, settings)].append(group)
    for split in SPLITS:
        if not chosen[split]:
            richest = max(chosen.values(), key=len)
            chosen[split].append(richest.pop(0 if split == "test" else -1))
    return {split: [rows[number] for group in chosen[split] for number in group] for split in SPLITS}


def _tied(rows: Sequence[Standing]) -> list[list[int]]:
    """Return the rows that visitors and conversations tie together, directly or over others."""
    tied = Components(len(rows))
    first: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        for key in (("visitor", row.statement.visitor), ("conversation", row.statement.conversation)):
            tied.tie(number, first.setdefault(key, number))
    return tied.groups(np.arange(len(rows)))


def _place(seed: int, rows: Sequence[Standing]) -> float:
    return int.from_bytes(seeded(seed, min(row.statement.visitor for row in rows))[:8]) / 2**64


def _split(place: float, settings: LearnSettings) -> Split:
    if place < settings.held_out:
        return "test"
    return "validation" if place < settings.held_out + settings.validation else "train"
