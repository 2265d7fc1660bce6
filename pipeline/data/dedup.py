"""Duplicates: the same roles with the same texts.

Exact ones are the same up to Unicode composition (NFC) and the amount of whitespace; folded ones also up to case,
punctuation and what else `fold` does not hear.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.core.data_settings import DataSettings
from pipeline.core.formats import Messages
from pipeline.core.messages import said
from pipeline.core.tool_calls import TOOLS
from pipeline.data.components import Components
from pipeline.data.folding import fold
from pipeline.data.near_duplicates import near_pairs, shingle
from pipeline.data.rows import Conversation


def normalize(text: str) -> str:
    """Return the text as exact duplicates are compared: NFC, each run of whitespace as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def digest(messages: Messages, heard: Callable[[str], str] = normalize) -> str:
    """Return a hex digest that equal messages share and others do not."""
    # Python counts the control characters 1e and 1f as whitespace, so normalised and folded texts have neither.
    joined = "\x1e".join(
        f"{message['role']}\x1f{heard(said(message))}" + ("" if message.get("weight", 1) else "\x1fshown")
        for message in messages
    )
    return hashlib.sha256(joined.encode()).hexdigest()


@dataclass(frozen=True)
class Distinct:
    """The conversations that are left of each split, and how many were not."""

    splits: dict[str, dict[str, Messages]]  # by a digest
    duplicates: int
    near_duplicates: int
    by_source: dict[str, int]  # duplicates

    def report(self) -> dict[str, object]:
        """Return the counts, as reports/prepare.json has them."""
        near, by_source = self.near_duplicates, self.by_source
        return {"duplicates": self.duplicates, "near_duplicates": near, "duplicates_by_source": by_source}


def drop_repeated(parts: Mapping[str, Sequence[Conversation]], settings: DataSettings) -> Distinct:
    """Return the rows of each split without duplicates, and those of train without what is nearly one."""
    rows = {name: [row.messages for row in part] for name, part in parts.items()}
    keys = {name: duplicate_keys(part, settings.duplicates) for name, part in rows.items()}
    distinct = {name: drop_duplicates(part, keys[name]) for name, part in rows.items()}
    far = drop_near_duplicates(distinct["train"], settings.near_duplicates)
    by_source = repeats(
        (f"{name} {key}" for name in keys for key in keys[name]),
        (row.source for part in parts.values() for row in part),
    )
    near = len(distinct["train"]) - len(far)
    return Distinct(distinct | {"train": far}, sum(by_source.values()), near, by_source)


def duplicate_keys(conversations: list[Messages], how: str) -> list[str]:
    """Return for each conversation the key that its duplicates share; `how` is data.duplicates."""
    if how != "off":
        return [digest(messages, fold if how == "folded" else normalize) for messages in conversations]
    keys = [""] * len(conversations)
    seen: Counter[str] = Counter()
    digests = [digest(messages) for messages in conversations]
    for place in sorted(range(len(keys)), key=lambda place: (digests[place], _texts(conversations[place]))):
        keys[place] = f"{digests[place]}-{seen[digests[place]]}"
        seen[digests[place]] += 1
    return keys


def drop_duplicates(conversations: Iterable[Messages], keys: list[str] | None = None) -> dict[str, Messages]:
    """Return the distinct conversations by digest; exact duplicates are dropped where no keys are given.

    Of those that share a key the least in code point order stays, whatever order they come in.
    """
    conversations = list(conversations)
    kept: dict[str, Messages] = {}
    for key, messages in zip(keys or duplicate_keys(conversations, "exact"), conversations, strict=True):
        kept[key] = min(kept[key], messages, key=_texts) if key in kept else messages
    distinct: dict[str, Messages] = {}
    for key in sorted(kept):
        found = digest(kept[key])
        distinct[found if found not in distinct else key] = kept[key]  # twice only where duplicates stay
    return distinct


def drop_near_duplicates(conversations: dict[str, Messages], threshold: float | None) -> dict[str, Messages]:
    """Return one conversation, the longest, of each cluster of those that overlap by the threshold."""
    if threshold is None:
        return conversations
    spoken = {key: [message for message in some if message["role"] != TOOLS] for key, some in conversations.items()}
    texts = {key: " \n ".join(map(fold, _texts(messages))) for key, messages in spoken.items()}
    keys = sorted(texts)
    found = Components(keys)
    for one, other in near_pairs(shingle(texts[key] for key in keys), threshold).tolist():
        found.tie(keys[one], keys[other])
    kept = {max(group, key=lambda key: (len(texts[key]), key)) for group in found.groups()}
    return {key: messages for key, messages in conversations.items() if key in kept}


def repeats(keys: Iterable[str], sources: Iterable[str]) -> dict[str, int]:
    """Return how many rows of each source say what an earlier row says."""
    seen: set[str] = set()
    found: Counter[str] = Counter()
    for key, source in zip(keys, sources, strict=True):
        found[source] += key in seen
        seen.add(key)
    return dict(found)


def _texts(messages: Messages) -> list[str]:
    return [said(message) for message in messages]
