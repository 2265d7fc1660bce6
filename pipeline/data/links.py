"""What ties conversations together, so that a model that has learnt one has seen something of the other."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

from pipeline.core.formats import Messages
from pipeline.data.dedup import digest
from pipeline.data.folding import fold


def prompt_digest(messages: Messages) -> str:
    """Return what conversations with the same prompt share: all that the assistant is given, to the letter."""
    return digest([message for message in messages if message["role"] != "assistant"])


def prompt_of(messages: Messages) -> str:
    """Return what a conversation asks, folded; a plain text asks itself, and what nobody asks is empty.

    Systems do not count: the same question under another one is the same question.
    """
    texts = (fold(message["content"]) for message in messages if message["role"] not in ("system", "assistant"))
    return " \n ".join(texts).strip()


def links(messages: Messages) -> set[bytes]:
    """Return the keys that a conversation shares with those that it must not be parted from.

    Of its folded prompt, and of each exchange: what a user says, and the answer.
    """
    prompt = prompt_of(messages)
    return {_key("prompt", prompt)} | set(_exchanges(messages)) if prompt else set(_exchanges(messages))


def _exchanges(messages: Messages) -> Iterator[bytes]:
    for before, after in pairwise(messages):
        if before["role"] == "user" and after["role"] == "assistant":
            yield _key("exchange", fold(before["content"]), fold(after["content"]))


def _key(*parts: str) -> bytes:
    return hashlib.blake2b("\x1e".join(parts).encode(), digest_size=16).digest()
