"""What the steps after reading know of a conversation: digests and hashes, so that its text may stay on disk."""

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from pipeline.core.messages import Message, Messages, said
from pipeline.core.tool_calls import TOOLS
from pipeline.data.folding import fold, squeeze

UNASKED = ("system", TOOLS, "assistant")


class Traits(NamedTuple):
    """Digests are of SHA-256, hashes are numbers of 64 bits."""

    digest: bytes  # of roles and texts, up to Unicode composition (NFC) and the amount of white space
    folded: bytes  # the same of folded texts
    text: int  # hash of the texts as they are
    letter: bytes  # digest of the prompt: all that the assistant is given
    prompt: str  # what users ask, folded; the same question under another system or with other tools is the same
    exchanges: list[int]  # hashes of what a user says and the answer, folded
    whole: str  # all texts, folded


def traits_of(messages: Messages) -> Traits:
    """Return the traits of a conversation; a plain text asks itself, and what nobody asks is an empty prompt."""
    texts = [said(message) for message in messages]
    squeezed = list(zip(messages, map(squeeze, texts), strict=True))
    folded = list(zip(messages, map(fold, texts), strict=True))
    return Traits(
        digest=digest(squeezed),
        folded=digest(folded),
        text=hash_of(texts),
        letter=digest((message, text) for message, text in squeezed if message["role"] != "assistant"),
        prompt=" \x1e ".join(text for message, text in folded if message["role"] not in UNASKED).strip(),
        exchanges=sorted(
            {
                hash_of((asked, answer))
                for (before, asked), (after, answer) in pairwise(folded)
                if before["role"] == "user" and after["role"] == "assistant"
            }
        ),
        whole=" \x1e ".join(text for message, text in folded if message["role"] != TOOLS),
    )


def digest(texts: Iterable[tuple[Message, str]]) -> bytes:
    """Return a digest that conversations share which have the same texts in the same roles, and others do not."""
    # Python counts the control characters 1e and 1f as white space, so squeezed and folded texts have neither.
    joined = "\x1e".join(
        f"{message['role']}\x1f{text}" + ("" if message.get("weight", 1) else "\x1fshown") for message, text in texts
    )
    return hashlib.sha256(joined.encode()).digest()


def hash_of(texts: Iterable[str]) -> int:
    """Return a hash of texts one after another."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).digest())
