"""What ties conversations together, so that a model that has learnt one has seen something of the other."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from pipeline.core.formats import Messages
from pipeline.core.messages import said
from pipeline.data.dedup import digest
from pipeline.data.folding import fold

UNASKED = ("system", "tools", "assistant")
COMMON_SHARE, COMMON_ROWS = 0.1, 5  # an exchange in more rows than both is a greeting, which ties nothing


def prompt_digest(messages: Messages) -> str:
    """Return what conversations with the same prompt share: all that the assistant is given, to the letter."""
    return digest([message for message in messages if message["role"] != "assistant"])


def prompt_of(messages: Messages) -> str:
    """Return what a conversation asks, folded; a plain text asks itself, and what nobody asks is empty.

    Systems and tools do not count: the same question under others is the same question.
    """
    texts = (fold(message["content"]) for message in messages if message["role"] not in UNASKED)
    return " \n ".join(texts).strip()


def prompt_keys(messages: Messages, prompt: str) -> set[bytes]:
    """Return the keys of a conversation's prompt, to the letter and as `prompt_of` has it."""
    return {letter_key(messages), _key("prompt", prompt)} if prompt else {letter_key(messages)}


def letter_key(messages: Messages) -> bytes:
    """Return the key of a prompt to the letter."""
    return _key("letter", prompt_digest(messages))


def exchange_keys(messages: Messages) -> set[bytes]:
    """Return a key for each exchange: what a user says, and the answer, folded."""
    return {
        _key("exchange", fold(before["content"]), fold(said(after)))
        for before, after in pairwise(messages)
        if before["role"] == "user" and after["role"] == "assistant"
    }


def common(exchanges: Iterable[set[bytes]], rows: int) -> set[bytes]:
    """Return the exchanges that too many of the rows have to say anything of them."""
    counts = Counter(key for keys in exchanges for key in keys)
    return {key for key, count in counts.items() if count > max(COMMON_ROWS, COMMON_SHARE * rows)}


def _key(*parts: str) -> bytes:
    return hashlib.blake2b("\x1e".join(parts).encode(), digest_size=16).digest()
