"""A share of each source in each split: what comes to nothing by chance where a source is small."""

from collections import Counter
from collections.abc import Mapping, Sequence

Groups = list[list[int]]  # of rows; each stays on one side


def with_each_source(
    chosen: Mapping[str, Groups], in_order: Sequence[list[int]], sources: Sequence[str], shares: Mapping[str, float]
) -> dict[str, Groups]:
    """Return the groups of each split, with some of each source that has rows enough for its share and got none.

    Places by hashes give each source its share on the average: of 40 rows, 5% come to none in one split of ten. Such a
    source gets its share out of train, from the end of the order that the split is taken from.

    Args:
        chosen: groups by split.
        in_order: all groups by their seeded places; test is taken from the front, and validation from the back.
        sources: the name of each row's.
        shares: of the rows, by split.
    """
    made = dict(chosen)
    rows = Counter(sources[key] for group in in_order for key in group)
    for split, share in shares.items():
        there = {sources[key] for group in made[split] for key in group}
        for source in sorted(rows.keys() - there):
            taken = _first(made["train"], in_order if split == "test" else in_order[::-1], sources, source)
            fitting = _fitting(taken, int(share * rows[source]))
            moved = {group[0] for group in fitting}
            made[split] = [*made[split], *fitting]
            made["train"] = [group for group in made["train"] if group[0] not in moved]
    return made


def _first(train: Groups, in_order: Sequence[list[int]], sources: Sequence[str], source: str) -> Groups:
    """Return the groups of train that are of a source alone, in order."""
    here = {group[0] for group in train}
    return [group for group in in_order if group[0] in here and all(sources[key] == source for key in group)]


def _fitting(groups: Groups, room: int) -> Groups:
    """Return the first groups that have so many rows together at most."""
    found = []
    for group in groups:
        if len(group) <= room:
            found.append(group)
            room -= len(group)
    return found
