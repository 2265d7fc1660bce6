"""A seeded split that keeps the same prompt on one side and does not depend on the order of files or rows."""

import hashlib
from collections import defaultdict
from itertools import chain

from common.errors import UserError
from common.words import counted
from pipeline.core.formats import Messages
from pipeline.data.dedup import digest

SPLITS = ("train", "validation", "test")


def split(
    conversations: dict[str, Messages], validation: float, test: float, seed: int
) -> dict[str, dict[str, Messages]]:
    """Divide conversations, given by digest, into train, validation and test, each in a shuffled order.

    Rows whose non-assistant messages are the same stay together. Prompts are put in the order of a seeded hash; test
    is taken from the front of it and validation from the back, so that more data moves few rows from one split to
    another. Both sizes are exact unless prompts that repeat leave no row that fits; then they fall short of it. A split
    of the size 0 has no row.

    Raises:
        UserError: a split would be empty.
    """
    sizes = {name: _rows(size, len(conversations)) for name, size in (("validation", validation), ("test", test))}
    if len(conversations) - sum(sizes.values()) < 1:
        raise _too_few(len(conversations), sizes)
    groups = _groups_by_prompt(conversations, seed)
    tests, rest = _take(groups, sizes["test"])
    validations, trains = _take(rest[::-1], sizes["validation"])
    chosen = {"train": trains, "validation": validations, "test": tests}
    if not trains or any(size and not chosen[name] for name, size in sizes.items()):
        raise _too_few(len(conversations), sizes, prompts=len(groups))
    return {
        name: shuffled({key: conversations[key] for key in chain(*members)}, seed) for name, members in chosen.items()
    }


def shuffled(conversations: dict[str, Messages], seed: int) -> dict[str, Messages]:
    """Return conversations in the order of the seeded hashes of their digests."""
    return {key: conversations[key] for key in sorted(conversations, key=lambda key: _seeded(seed, key))}


def _rows(size: float, total: int) -> int:
    """Return a share of `total`, at least one row, or the count that a `size` of 0 or from 1 up is."""
    return max(1, round(size * total)) if 0 < size < 1 else int(size)


def _groups_by_prompt(conversations: dict[str, Messages], seed: int) -> list[list[str]]:
    """Return the digests of the conversations that share a prompt, in the order of the prompts' seeded hashes."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, messages in conversations.items():
        groups[digest([message for message in messages if message["role"] != "assistant"])].append(key)
    return [groups[prompt] for prompt in sorted(groups, key=lambda prompt: _seeded(seed, prompt))]


def _take(groups: list[list[str]], rows: int) -> tuple[list[list[str]], list[list[str]]]:
    """Return the first groups that fit into `rows`, skipping those too large for what is left, and the others."""
    taken, rest = [], []
    for group in groups:
        if len(group) <= rows:
            taken.append(group)
            rows -= len(group)
        else:
            rest.append(group)
    return taken, rest


def _seeded(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()


def _too_few(rows: int, sizes: dict[str, int], prompts: int | None = None) -> UserError:
    distinct = "" if prompts is None else f" with {counted(prompts, 'different prompt')}"
    return UserError(
        f"too few rows to split: {rows} distinct{distinct}, of which data.validation takes {sizes['validation']} and "
        f"data.test {sizes['test']}, and each split needs at least 1; add data or lower the two"
    )
