"""A seeded split that keeps what belongs together on one side and does not depend on the order of files or rows."""

import hashlib
from collections import defaultdict
from itertools import chain

import numpy as np

from common.errors import UserError
from common.words import counted
from pipeline.data.corpus import Corpus
from pipeline.data.near_duplicates import Integers
from pipeline.data.strata import with_each_source

SPLITS = ("train", "validation", "test")

Rows = dict[str, Integers]  # by split
Groups = list[list[int]]  # of rows; each stays on one side
Place = tuple[float, list[int]]  # of a group, from 0 to 1


def split(
    corpus: Corpus, rows: Integers, validation: float, test: float, seed: int, components: Groups | None = None
) -> dict[str, Integers]:
    """Divide rows into train, validation and test, each in a shuffled order.

    Rows of a component stay together; where none are given, those whose non-assistant messages are the same. They have
    a place by the seeded hash of the least of their prompts; test is taken from the front and validation from the back.

    A number of rows is taken exactly, unless no component that is left fits. Of components a share is taken by the
    places alone, so that other rows, which come to the set, move none that were there; but for a component with more
    rows than the share comes to, which goes to train. Shares are exact where no components are given, and where a
    split would else be empty. A split of the size 0 has no row. Of a share each source has some, if it has the rows,
    and so have comparisons.

    Raises:
        UserError: a split would be empty.
    """
    sizes = {name: _rows(size, len(rows)) for name, size in (("validation", validation), ("test", test))}
    if len(rows) - sum(sizes.values()) < 1:
        raise _too_few(len(rows), sizes)
    places = _places(corpus, _by_prompt(corpus, rows) if components is None else components, seed)
    shares = {name: size for name, size in (("validation", validation), ("test", test)) if 0 < size < 1 and components}
    chosen = _choose(places, sizes, shares)
    if shares and _lacks(chosen, sizes):
        chosen = _choose(places, sizes, {})
    if shares and (corpus.grouped or corpus.compared.any()):
        chosen = with_each_source(chosen, [group for _, group in places], corpus.strata(), shares)
    if _lacks(chosen, sizes):
        raise _too_few(len(rows), sizes, [group for _, group in places], components is not None)
    return {name: shuffled(corpus, list(chain(*members)), seed) for name, members in chosen.items()}


def shuffled(corpus: Corpus, rows: list[int], seed: int) -> Integers:
    """Return rows in the order of the seeded hashes of their names."""
    return np.array(sorted(rows, key=lambda row: seeded(seed, corpus.name(row))), np.int64)


def _rows(size: float, total: int) -> int:
    """Return a share of `total`, at least one row, or the count that a `size` of 0 or from 1 up is."""
    return max(1, round(size * total)) if 0 < size < 1 else int(size)


def _by_prompt(corpus: Corpus, rows: Integers) -> Groups:
    """Return the rows that share a prompt."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row in rows.tolist():
        groups[corpus.letters[row]].append(row)
    return list(groups.values())


def _places(corpus: Corpus, groups: Groups, seed: int) -> list[Place]:
    """Return the groups in the order of the seeded hashes of their least prompts, with how far to the back each is."""
    hashed = [(seeded(seed, min(corpus.letters[row] for row in group).hex()), group) for group in groups]
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


def seeded(seed: int, key: str) -> bytes:
    """Return the place of a key in the order of a seed."""
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()


def _too_few(rows: int, sizes: dict[str, int], groups: Groups | None = None, tied: bool = False) -> UserError:
    distinct, ways = "", "add data or lower the two"
    if groups is not None:
        distinct = f" with {counted(len(groups), 'component' if tied else 'different prompt')}"
        least = min(map(len, groups))
        if len(groups) >= len(SPLITS) and least > min(size for size in sizes.values() if size):
            distinct += f" of {least:,} rows or more"
            ways = f"let each take {least:,} rows"
    if tied:
        ways += ", or split by exact prompts alone with data.leak_threshold=null"
    return UserError(
        f"too few rows to split: {rows} distinct{distinct}, of which data.validation takes {sizes['validation']} and "
        f"data.test {sizes['test']}, and each split needs at least 1; {ways}"
    )
