"""Figures of a prepared split, read a group of rows at a time; of texts, only those that stand most often are held."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline.core.formats import Messages
from pipeline.data.balance import prompt_of
from pipeline.data.cleaning_rules import answers
from pipeline.data.languages import language_of
from pipeline.data.quality import quality
from pipeline.data.topics import Topics
from pipeline.data_report.record import AnswerFigures, Quantiles, RepeatedAnswer, RoleFigures, SplitFigures
from pipeline.look.quantiles import QUANTILES, quantile

DRAWN = 2_000  # rows whose language and tokens are told; the first of a split, which is in a drawn order
MOST = 8  # answers that stand most often
EXCERPT = 160  # characters of one
SHORT = 3  # words
QUALITIES = (0.3, 0.5, 0.7, 0.9)
SOURCE = "source"  # the column that data of several sources has
CALLS = "tool_calls"
LEARNT = ("assistant", "text")

Counts = npt.NDArray[np.int64]


class Turns(NamedTuple):
    """The messages of a group of rows, beside one another."""

    roles: list[str]
    texts: list[str]
    learnt: list[bool]


class Scan:
    """What a split comes to, gathered group by group."""

    def __init__(self) -> None:
        self.characters: dict[str, list[Counts]] = {}
        self.words: dict[str, list[Counts]] = {}
        self.answers: list[Counts] = []  # hashes
        self.short = 0

    def add(self, turns: Turns) -> None:
        """Count the messages of a group."""
        roles = np.array(turns.roles)
        characters = np.fromiter(map(len, turns.texts), np.int64, len(roles))
        words = np.fromiter((len(text.split()) for text in turns.texts), np.int64, len(roles))
        for role in sorted(set(turns.roles)):
            self.characters.setdefault(role, []).append(characters[roles == role])
            self.words.setdefault(role, []).append(words[roles == role])
        self.answers.append(np.fromiter(map(hash, learnt(turns)), np.int64))
        self.short += int((words[np.array(turns.learnt, bool)] <= SHORT).sum())


def split_figures(
    path: Path, first: Sequence[Messages], topics: Topics | None
) -> tuple[SplitFigures, dict[str, Counts]]:
    """Return the figures of a split, and the words of each message by role.

    Args:
        path: of the split.
        first: its first rows, whose languages and topics are told.
        topics: that prompts are about.
    """
    scan, file = Scan(), pq.ParquetFile(path)
    for turns in groups(file):
        scan.add(turns)
    words = {role: np.concatenate(parts) for role, parts in scan.words.items()}
    roles = {
        role: RoleFigures(
            messages=len(words[role]), characters=quantiles(np.concatenate(parts)), words=quantiles(words[role])
        )
        for role, parts in scan.characters.items()
    }
    sources = Counter(file.read([SOURCE])[SOURCE].to_pylist()) if SOURCE in file.schema_arrow.names else {}
    about = Counter(map(topics.named, topics.of(map(prompt_of, first)).tolist())) if topics else Counter[str]()
    figures = SplitFigures(
        rows=file.metadata.num_rows,
        roles=roles,
        answers=answer_figures(scan, file),
        sources=dict(sorted(sources.items())),
        drawn=len(first),
        languages=dict(Counter(map(language_of, first)).most_common()),
        topics=dict(about.most_common()),
        quality=by_quality(first),
    )
    return figures, words


def by_quality(rows: Iterable[Messages]) -> dict[str, int]:
    """Return how many rows have a poorest answer of so much quality, the poorest first."""
    counts = Counter(bisect_right(QUALITIES, poorest(messages)[0]) for messages in rows)
    names = [
        f"below {QUALITIES[0]}",
        *(f"{low} to {high}" for low, high in pairwise(QUALITIES)),
        f"{QUALITIES[-1]} to 1",
    ]
    return {name: counts[place] for place, name in enumerate(names)}


def poorest(messages: Messages) -> tuple[float, str]:
    """Return the answer of a conversation that looks worst, and its score."""
    return min(((quality(text), text) for text in answers(messages)), default=(1.0, ""))


def groups(file: pq.ParquetFile) -> Iterator[Turns]:
    """Yield the messages of each row group."""
    for number in range(file.num_row_groups):
        messages = file.read_row_group(number, ["messages"])["messages"].combine_chunks().flatten()
        names = [messages.type.field(at).name for at in range(messages.type.num_fields)]
        roles, texts = messages.field("role").to_pylist(), messages.field("content").to_pylist()
        if CALLS in names:  # of turns that say nothing beside them
            texts = [text or calls for text, calls in zip(texts, messages.field(CALLS).to_pylist(), strict=True)]
        weights = messages.field("weight").to_pylist() if "weight" in names else [1] * len(roles)
        yield Turns(
            roles,
            [text or "" for text in texts],
            [role in LEARNT and weight != 0 for role, weight in zip(roles, weights, strict=True)],
        )


def learnt(turns: Turns) -> Iterator[str]:
    """Yield what is learnt, without white space at its ends."""
    return (text.strip() for text, is_learnt in zip(turns.texts, turns.learnt, strict=True) if is_learnt)


def answer_figures(scan: Scan, file: pq.ParquetFile) -> AnswerFigures:
    """Return how many answers there are, and those that stand more than once most often."""
    said = np.concatenate([np.empty(0, np.int64), *scan.answers])
    hashes, firsts, counts = np.unique(said, return_index=True, return_counts=True)
    most = sorted(np.flatnonzero(counts > 1), key=lambda at: (-counts[at], firsts[at]))[:MOST]
    texts = _answers_at(scan, file, sorted(firsts[most].tolist()))
    return AnswerFigures(
        answers=int(counts.sum()),
        different=len(hashes),
        short=scan.short,
        most=tuple(RepeatedAnswer(answer=texts[firsts[at]][:EXCERPT], times=counts[at]) for at in most),
    )


def _answers_at(scan: Scan, file: pq.ParquetFile, places: Sequence[int]) -> dict[int, str]:
    """Return the answers that stand at these places of all, in order."""
    found: dict[int, str] = {}
    begin = 0
    if not places:
        return found
    wanted = set(places)
    for part, turns in zip(scan.answers, groups(file), strict=True):
        if any(begin <= place < begin + len(part) for place in places):
            found |= {begin + at: text for at, text in enumerate(learnt(turns)) if begin + at in wanted}
        begin += len(part)
        if begin > places[-1]:
            break
    return found


def first_rows(path: Path, count: int) -> list[Messages]:
    """Return the first rows of a split."""
    batches = pq.ParquetFile(path).iter_batches(min(count, 1000), columns=["messages"])
    rows = (row for batch in batches for row in batch["messages"].to_pylist())
    return list(islice(rows, count))


def quantiles(values: Counts) -> Quantiles:
    """Return the median and what else QUANTILES names."""
    ordered = np.sort(values).tolist()
    return {name: quantile(ordered, share) for name, share in QUANTILES.items()}
