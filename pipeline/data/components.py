"""Connected components: what is tied to one another, directly or over others."""

from collections import defaultdict
from collections.abc import Hashable, Iterable


class Components:
    """Members and the ties between them; each is at first alone."""

    def __init__(self, members: Iterable[str]) -> None:
        self._parents = {member: member for member in members}

    def tie(self, one: str, other: str) -> None:
        """Make the components of both one."""
        self._parents[self._root(one)] = self._root(other)

    def tie_by(self, keys: Iterable[tuple[str, Iterable[Hashable]]]) -> None:
        """Tie members that have a key in common."""
        first: dict[Hashable, str] = {}
        for member, shared in keys:
            for key in shared:
                self.tie(member, first.setdefault(key, member))

    def groups(self) -> list[list[str]]:
        """Return the members of each component."""
        found: dict[str, list[str]] = defaultdict(list)
        for member in self._parents:
            found[self._root(member)].append(member)
        return list(found.values())

    def _root(self, member: str) -> str:
        parents = self._parents
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member
