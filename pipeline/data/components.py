"""Connected components: what is tied to one another, directly or over others."""

from collections import defaultdict

import numpy as np

from pipeline.data.near_duplicates import Integers, Words


class Components:
    """Members, which are numbers below `size`, and the ties between them; each is at first alone."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def tie(self, one: int, other: int) -> None:
        """Make the components of both one."""
        self._parents[self._root(one)] = self._root(other)

    def tie_by(self, keys: Words, owners: Integers) -> None:
        """Tie members that have a key in common."""
        order = np.argsort(keys, kind="stable")
        same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
        for one, other in zip(owners[order[same]].tolist(), owners[order[same + 1]].tolist(), strict=True):
            self.tie(one, other)

    def groups(self, members: Integers) -> list[list[int]]:
        """Return some members by component."""
        found: dict[int, list[int]] = defaultdict(list)
        for member in members.tolist():
            found[self._root(member)].append(member)
        return list(found.values())

    def _root(self, member: int) -> int:
        parents = self._parents
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member
