"""What a step of a model takes by its rows, and how many rows of a conversation add up as each does alone."""

import time
from bisect import bisect, insort
from collections.abc import Sequence
from statistics import median

from llama.model import BATCH, Entry, LlamaModel

PROBED = 8  # rows that are computed one by one as well: where kernels change, they do at 2, 4 or 8
TIMED = (2, 4, 8, 16, 32)  # rows
LONG = 1.0  # seconds after which no more than PROBED are
NEWEST = 0.2  # weight of a step's time among those before it


class Costs:
    """Seconds that a step takes by its rows, as it was of late."""

    def __init__(self, seconds: dict[int, float]) -> None:
        """Begin with what was measured for one row and for another number."""
        self._seconds, self._known = seconds, sorted(seconds)

    def of(self, rows: int) -> float:
        """Return the seconds for a number of rows; where it is not known, on a line through two that are."""
        if rows in self._seconds:
            return self._seconds[rows]
        above = min(bisect(self._known, rows), len(self._known) - 1)
        low, high = self._known[above - 1], self._known[above]
        begin, end = self._seconds[low], self._seconds[high]
        return max(begin + (end - begin) * (rows - low) / (high - low), self._seconds[1])

    def learn(self, rows: int, seconds: float) -> None:
        """Take in what a step took; of one that something else held up, no more than twice what was known."""
        known = self.of(rows)
        if rows not in self._seconds:
            insort(self._known, rows)
        self._seconds[rows] = known + NEWEST * (min(seconds, 2 * known) - known)


def probe(model: LlamaModel) -> tuple[int, Costs]:
    """Return how many rows add up together to the same bits as one by one, and what steps cost.

    A model so slow that this would take long is not asked for the largest of them.
    """
    entries = [Entry(i * model.vocabulary // TIMED[-1], i, 0, True) for i in range(TIMED[-1])]
    alone, seconds = [], []
    for entry in entries[:PROBED]:
        seconds.append(_seconds(model, [entry]))
        alone.append(model.logits(0).copy())
    costs, alike = {1: median(seconds)}, {}
    for rows in TIMED:
        if rows <= PROBED or sum(seconds) < LONG:
            model.forget(0)
            seconds.append(_seconds(model, entries[:rows]))
            costs[rows] = seconds[-1]
            alike[rows] = all((model.logits(i) == logits).all() for i, logits in enumerate(alone[:rows]))
    model.forget(0)
    return next((rows // 2 for rows, same in alike.items() if not same), BATCH), Costs(costs)


def _seconds(model: LlamaModel, entries: Sequence[Entry]) -> float:
    """Return the seconds that a step takes."""
    began = time.perf_counter()
    model.decode(entries)
    return time.perf_counter() - began
