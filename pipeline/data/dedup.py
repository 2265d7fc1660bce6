"""Exact duplicates: the same roles with the same texts, up to Unicode composition (NFC) and the amount of whitespace.

Case and punctuation count as differences.
"""

import hashlib
import unicodedata
from collections.abc import Iterable

from pipeline.core.formats import Messages


def normalize(text: str) -> str:
    """Return the text as duplicates are compared: NFC, each run of whitespace as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def digest(messages: Messages) -> str:
    """Return a hex digest that equal messages share and others do not."""
    # Python counts the control characters 1e and 1f as whitespace, so normalised text has neither.
    joined = "\x1e".join(
        f"{message['role']}\x1f{normalize(message['content'])}" + ("" if message.get("weight", 1) else "\x1fshown")
        for message in messages
    )
    return hashlib.sha256(joined.encode()).hexdigest()


def drop_duplicates(conversations: Iterable[Messages]) -> dict[str, Messages]:
    """Return the distinct conversations by digest.

    Of those that differ in whitespace alone the least in code point order stays, whatever order they come in.
    """
    kept: dict[str, Messages] = {}
    for messages in conversations:
        key = digest(messages)
        kept[key] = min(kept[key], messages, key=_texts) if key in kept else messages
    return kept


def _texts(messages: Messages) -> list[str]:
    return [message["content"] for message in messages]
