"""General conversations and texts that train replays: a share of its rows, so that the base forgets less.

They come beside the data's own rows and change neither these nor the other splits. A row that stands in what is
measured, or nearly, is never taken: the other splits, the questions, and the sets of general texts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from pipeline.core.data_settings import DataSettings, is_replayed, replayed
from pipeline.core.formats import Messages
from pipeline.core.records import ReplayReport
from pipeline.data.corpus import Corpus
from pipeline.data.decontaminate import asked
from pipeline.data.dedup import duplicates, without
from pipeline.data.folding import fold
from pipeline.data.near_duplicates import Integers
from pipeline.data.rows import SourceCounts
from pipeline.data.split import seeded

UNHEARD = ("system", "tools")  # roles of messages that are none of what a conversation is about
AT_ONCE = 10_000  # rows that are looked at together


@dataclass(frozen=True)
class Replayed:
    """The rows that are taken, and how many there were to take from."""

    rows: Integers
    wanted: int  # as many as the share comes to
    usable: int
    repeated: int  # that say what another, or a row of train, says
    measured: int  # passed over since they stand in what is measured

    def report(self, settings: DataSettings, counts: Sequence[SourceCounts]) -> ReplayReport | None:
        """Return it as reports/prepare.json has it; None where nothing is replayed."""
        if not (sources := replayed(settings)) or settings.replay is None:
            return None
        return ReplayReport(
            share=settings.replay.share,
            revisions={name: next((c.revision for c in counts if c.group == name), None) for name in sources},
            usable=self.usable,
            repeated=self.repeated,
            measured=self.measured,
            wanted=self.wanted,
            taken=len(self.rows),
        )


def rows_of(corpus: Corpus) -> Integers:
    """Return the rows that are there to be replayed."""
    return np.array([row for row, group in enumerate(corpus.groups) if is_replayed(group)], np.int64)


def draw(corpus: Corpus, train: Integers, settings: DataSettings, measured: Iterable[str]) -> Replayed:
    """Return rows to replay beside those of train, as many as `data.replay.share` says or as there are.

    Args:
        corpus: that has both.
        train: its rows, each as often as it stands there.
        settings: of the data.
        measured: texts of what is measured.
    """
    usable = rows_of(corpus)
    share = settings.replay.share if settings.replay else 0.0
    wanted = round(len(train) * share / (1 - share))
    known = {corpus.folded[row] for row in train.tolist()}
    distinct = without(usable, duplicates(corpus, usable, "folded"))
    fresh = [row for row in distinct.tolist() if corpus.folded[row] not in known]
    held = list(measured) if fresh else []
    taken, passed_over = list[int](), 0
    in_order = sorted(fresh, key=lambda row: seeded(settings.seed, f"replay {corpus.name(row)}"))
    for start in range(0, len(in_order), AT_ONCE):
        if len(taken) >= wanted:
            break
        rows = in_order[start : start + AT_ONCE]
        stands = stand_in(list(corpus.messages(rows)), held, settings.leak_threshold)
        left = [row for row, there in zip(rows, stands, strict=True) if not there][: wanted - len(taken)]
        taken, passed_over = taken + left, passed_over + sum(stands)
    return Replayed(np.array(taken, np.int64), wanted, len(usable), len(usable) - len(fresh), passed_over)


def stand_in(conversations: Sequence[Messages], held: Sequence[str], threshold: float | None) -> list[bool]:
    """Return of each conversation whether what it is about stands in a held text, or says one of them to the word."""
    words = set(map(fold, held))
    about = asked(map(subject, conversations), held, threshold)
    return [
        there or any(fold(said) in words for said in contents([messages]))
        for there, messages in zip(about, conversations, strict=True)
    ]


def mixed(corpus: Corpus, train: Integers, replay: Integers, settings: DataSettings) -> Integers:
    """Return the rows of train with those that are replayed among them, in seeded places."""
    if not len(replay):
        return train
    places = sorted((seeded(settings.seed, corpus.name(row)), row) for row in replay.tolist())
    where = [int.from_bytes(place[:8]) / 2**64 for place, _ in places]
    return np.insert(train, np.floor(np.array(where) * (len(train) + 1)).astype(np.int64), [row for _, row in places])


def subject(messages: Messages) -> str:
    """Return what a conversation is about, by which it is known elsewhere: the first question, or a plain text."""
    return next((message["content"] for message in messages if message["role"] in ("user", "text")), "")


def contents(conversations: Iterable[Messages]) -> Iterator[str]:
    """Yield all that is said in conversations."""
    said = chain.from_iterable(conversations)
    return (message["content"] for message in said if message["role"] not in UNHEARD and message["content"])
