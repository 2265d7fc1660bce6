"""A seeded split that keeps what belongs together on one side and does not depend on the order of files or rows."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain

from common.errors import UserError
from common.words import counted
from pipeline.core.formats import Messages
from pipeline.data.links import prompt_digest
from pipeline.data.strata import with_each_source

SPLITS = ("train", "validation", "test")

Groups = list[list[str]]  # of digests of conversations; each stays on one side
Place = tuple[float, list[str]]  # of a group, from 0 to 1


def split(
    conversations: dict[str, Messages],
    validation: float,
    test: float,
    seed: int,
    components: Groups | None = None,
    sources: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Messages]]:
    """Divide conversations, given by digest, into train, validation and test, each in a shuffled order.

    Rows of a component stay together; where none are given, those whose non-assistant messages are the same. They have
    a place by the seeded hash of the least of their prompts; test is taken from the front and validation from the back.

    A number of rows is taken exactly, unless no component that is left fits. Of components a share is taken by the
    places alone, so that other rows, which come to the set, move none that were there; but for a component with more
    rows than the share comes to, which goes to train. Shares are exact where no components are given, and where a
    split would else be empty. A split of the size 0 has no row. Of a share each source has some, if it has the rows.

    Raises:
        UserError: a split would be empty.
    """
    sizes = {name: _rows(size, len(conversations)) for name, size in (("validation", validation), ("test", test))}
    if len(conversations) - sum(sizes.values()) < 1:
        raise _too_few(len(conversations), sizes)
    places = _places(_by_prompt(conversations) if components is None else components, conversations, seed)
    shares = {name: size for name, size in (("validation", validation), ("test", test)) if 0 < size < 1 and components}
    chosen = _choose(places, sizes, shares)
    if shares and _lacks(chosen, sizes):
        chosen = _choose(places, sizes, {})
    if shares and sources:
        chosen = with_each_source(chosen, [group for _, group in places], sources, shares)
    if _lacks(chosen, sizes):
        raise _too_few(
            len(conversations), sizes, len(places), "different prompt" if components is None else "component"
        )
    return {
        name: shuffled({key: conversations[key] for key in chain(*members)}, seed) for name, members in chosen.items()
    }


def shuffled(conversations: dict[str, Messages], seed: int) -> dict[str, Messages]:
    """Return conversations in the order of the seeded hashes of their digests."""
    return {key: conversations[key] for key in sorted(conversations, key=lambda key: _seeded(seed, key))}


def _rows(size: float, total: int) -> int:
    """Return a share of `total`, at least one row, or the count that a `size` of 0 or from 1 up is."""
    return max(1, round(size * total)) if 0 < size < 1 else int(size)


def _by_prompt(conversations: dict[str, Messages]) -> Groups:
    """Return the digests of the conversations that share a prompt."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key, messages in conversations.items():
        groups[prompt_digest(messages)].append(key)
    return list(groups.values())


def _places(groups: Groups, conversations: dict[str, Messages], seed: int) -> list[Place]:
    """Return the groups in the order of the seeded hashes of their least prompts, with how far to the back each is."""
    hashed = [(_seeded(seed, min(prompt_digest(conversations[key]) for key in group)), group) for group in groups]
    return [(int.from_bytes(place[:8]) / 2**64, group) for place, group in sorted(hashed)]


def _choose(places: list[Place], sizes: dict[str, int], shares: dict[str, float]) -> dict[str, Groups]:
    """Return the groups of each split, those of a share by their places and the others by their number of rows."""
    tests, rest = _take(places, sizes["test"], shares.get("test"))
    from_the_back = [(1 - place, group) for place, group in reversed(rest)]
    validations, trains = _take(from_the_back, sizes["validation"], shares.get("validation"))
    return {"train": [group for _, group in trains], "validation": validations, "test": tests}


def _take(places: list[Place], rows: int, share: float | None) -> tuple[Groups, list[Place]]:
    """Return the groups of a split, all in its share or the first that fit, none of more rows; and those left."""
    taken, rest, room = [], [], rows
    for place, group in places:
        if len(group) <= room and (share is None or place < share):
            taken.append(group)
            room -= len(group) if share is None else 0
        else:
            rest.append((place, group))
    return taken, rest


def _lacks(chosen: dict[str, Groups], sizes: dict[str, int]) -> bool:
    """Return whether a split that is to have rows has none."""
    return not chosen["train"] or any(size and not chosen[name] for name, size in sizes.items())


def _seeded(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()


def _too_few(rows: int, sizes: dict[str, int], groups: int | None = None, kind: str = "") -> UserError:
    distinct = "" if groups is None else f" with {counted(groups, kind)}"
    apart = ", or split by exact prompts alone with data.leak_threshold=null" if kind == "component" else ""
    return UserError(
        f"too few rows to split: {rows} distinct{distinct}, of which data.validation takes {sizes['validation']} and "
        f"data.test {sizes['test']}, and each split needs at least 1; add data or lower the two{apart}"
    )
