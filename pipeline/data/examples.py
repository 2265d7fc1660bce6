"""Some of what each step leaves out, and of what hangs together: drawn by a seed, whatever order it comes in.

Steps hand over row numbers alone; the report fetches the texts of those that it shows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from typing import Literal, NamedTuple

from pipeline.data.draw import place

DRAWN = 25  # pairs a step, of which the report shows those first that differ
SHOWN_GROUPS = 5  # the largest
SHOWN_MEMBERS = 3  # of a group

Step = Literal["duplicates", "near_duplicates", "leaks"]
Kind = Literal["near_duplicates", "components"]


class LeftOut(NamedTuple):
    """The numbers of a row that is left out, and of the one that it gives way to."""

    dropped: int
    kept: int


class Group(NamedTuple):
    """Rows that hang together: how many, and the numbers of some."""

    rows: int
    members: list[int]


class Groups(NamedTuple):
    """Groups of one kind: how many there are by their rows, and the largest."""

    sizes: Counter[int]
    largest: list[Group]


class Examples:
    """What the steps of a run have left out, and tied together, in examples."""

    def __init__(self, seed: int, digest_of: Callable[[int], bytes]) -> None:
        """Draw by `seed`, from rows known by the digests of their texts: so their numbers do not count."""
        self._seed = seed
        self._digest_of = digest_of
        self.left: dict[Step, list[LeftOut]] = {}
        self.groups: dict[Kind, Groups] = {}

    def left_out(self, step: Step, pairs: Iterable[tuple[int, int]]) -> None:
        """Draw from the rows that a step leaves out; one for each row that they give way to.

        Args:
            step: what leaves them out.
            pairs: the number of each row left out, and of the one that it gives way to: the duplicate that is kept,
                or the row of another split that it is linked to.
        """
        found: dict[int, tuple[bytes, LeftOut]] = {}
        for pair in pairs:
            here, left = self._place(pair[0]), LeftOut(*pair)
            if left.kept not in found or here < found[left.kept][0]:
                found[left.kept] = here, left
        drawn = nsmallest(DRAWN, found.items(), key=lambda one: (self._place(one[0]), one[1][0]))
        self.left[step] = [left for _, (_, left) in drawn]

    def hang_together(self, kind: Kind, groups: Iterable[Sequence[int]]) -> None:
        """Take the largest of groups of row numbers; those of one row are counted and never shown."""
        sizes: Counter[int] = Counter()
        largest: list[Sequence[int]] = []
        for group in groups:
            sizes[len(group)] += 1
            if len(group) > 1:
                largest.append(group)
                if len(largest) > 100 * SHOWN_GROUPS:
                    largest = self._largest(largest)
        self.groups[kind] = Groups(sizes, [self._shown(group) for group in self._largest(largest)])

    def _shown(self, group: Sequence[int]) -> Group:
        return Group(len(group), nsmallest(SHOWN_MEMBERS, group, key=self._place))

    def _largest(self, groups: list[Sequence[int]]) -> list[Sequence[int]]:
        return nsmallest(SHOWN_GROUPS, groups, key=lambda group: (-len(group), min(map(self._digest_of, group))))

    def _place(self, row: int) -> bytes:
        return place(self._digest_of(row), self._seed)
