"""Rows that are left out so that no topic, and no length, has too large a share of what is learnt."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from math import ceil
from typing import NamedTuple

from common.errors import UserError
from pipeline.core.data_settings import CleanSettings
from pipeline.core.formats import Messages
from pipeline.data.draw import place
from pipeline.data.topics import NONE, find_topics

DRAWN = 5_000  # prompts that topics are found in
CHUNK = 5_000  # rows held at once

Texts = Callable[[Sequence[int]], Iterable[Messages]]  # of rows, by their numbers


class Balanced(NamedTuple):
    """The rows that stay, in their order, and how many went, by what there was too much of."""

    rows: list[int]
    left_out: dict[str, int]


def balance(
    rows: Sequence[int], texts: Texts, digest_of: Callable[[int], bytes], settings: CleanSettings, seed: int
) -> Balanced:
    """Return the rows without those that a topic or a length has beyond its largest share of them.

    Prompts of no topic stay.

    Which of them go is drawn by the seed over the digests, so that the order of files and rows does not count.

    Args:
        rows: numbers of rows, each once.
        texts: returns their messages.
        digest_of: returns the digest of one's texts.
        settings: of `data.clean`, whose `topic_share` and `length_share` are the largest shares; null for any.
        seed: of the draw.

    Raises:
        UserError: topics are to be balanced, and there are none.
    """
    if settings.topic_share is None and settings.length_share is None:
        return Balanced(list(rows), {})
    ordered = sorted(rows, key=lambda row: place(digest_of(row), seed))
    left_out: Counter[str] = Counter()
    gone: set[int] = set()
    for share, keys_of in ((settings.topic_share, _topics), (settings.length_share, _lengths)):
        if share is None:
            continue
        waiting = [row for row in ordered if row not in gone]
        taken: Counter[str] = Counter()
        for row, key in zip(waiting, keys_of(waiting, texts, seed), strict=True):
            taken[key] += 1
            if key and taken[key] > ceil(share * len(ordered)):
                gone.add(row)
                left_out[key] += 1
    return Balanced([row for row in rows if row not in gone], dict(left_out.most_common()))


def prompt_of(messages: Messages) -> str:
    """Return what is asked; of a plain text, the text."""
    return " ".join(message["content"] for message in messages if message["role"] in ("user", "text"))


def length_of(messages: Messages) -> str:
    """Return the bucket of a conversation's length, each twice as wide as the one before."""
    words = sum(len(message["content"].split()) for message in messages)
    low = 1 << max(words.bit_length() - 1, 0)
    return f"{low:,} to {2 * low - 1:,} words"


def _topics(rows: Sequence[int], texts: Texts, seed: int) -> Iterable[str]:
    """Return the topic of each row; it is empty where there is none."""
    topics = find_topics([prompt_of(messages) for messages in texts(rows[:DRAWN])], seed)
    if topics is None:
        raise UserError(
            "data.clean.topic_share is set, and prompts share too few words to tell topics; set it to null, or add rows"
        )
    names = {number: f"topic {name}" for number, name in enumerate(topics.names)} | {NONE: ""}
    return (names[number] for part in _parts(rows, texts) for number in topics.of(map(prompt_of, part)).tolist())


def _lengths(rows: Sequence[int], texts: Texts, seed: int) -> Iterable[str]:
    return (length_of(messages) for part in _parts(rows, texts) for messages in part)


def _parts(rows: Sequence[int], texts: Texts) -> Iterable[Iterable[Messages]]:
    waiting = iter(rows)
    while part := list(islice(waiting, CHUNK)):
        yield texts(part)
