"""How many threads compute: fewer while others want the CPUs.

llama.cpp's threads wait for each other hundreds of times in a step, spinning. Should one of them have to share its CPU,
all wait for it: beside one busy process, two threads on two CPUs are slower than one. How long threads had to wait for
a CPU is known to the kernel, so this gives way where it pays, and tries again later, after ever longer pauses. What is
computed does not change with the number of threads, but for flash attention (model.py's INEXACT types).
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.25  # between two looks
COMPUTING = 0.3  # share of the time that a thread which computes wants a CPU at least
CROWDED = 0.6  # of the speed that a thread adds: what waiting may cost before it is given up
PAUSE_SECONDS, LONGEST_PAUSE = 2.0, 30.0  # before one more is tried
SETTLED_SECONDS = 3.0  # one that is given up later than that has been of use


class Threads:
    """The number of threads for each step of one model."""

    def __init__(
        self, most: int, waited: "Callable[[], float] | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin with at most so many; `waited` and `clock` give seconds, and tests give their own."""
        self.count = self._most = most
        self._waited, self._clock = waited or Waits(), clock
        self._looked, self._before = clock(), self._waited()
        self._changed, self._pause = self._looked, PAUSE_SECONDS

    def now(self) -> int:
        """Return how many threads the next step is for."""
        now = self._clock()
        if self._most > 1 and now - self._looked >= LOOK_SECONDS:
            waited = self._waited()
            share = (waited - self._before) / (now - self._looked)
            self._looked, self._before = now, waited
            self._adapt(now, share)
        return self.count

    def _adapt(self, now: float, share: float) -> None:
        """Give one up or try one more, for threads that together waited for such a share of the time."""
        settled = now - self._changed
        if self.count > 1 and share > CROWDED / self.count:
            self._pause = PAUSE_SECONDS if settled > SETTLED_SECONDS else min(2 * self._pause, LONGEST_PAUSE)
            self.count, self._changed = self.count - 1, now
        elif self.count < self._most and share < CROWDED / (self.count + 1) and settled > self._pause:
            self.count, self._changed = self.count + 1, now


class Waits:
    """How long the threads that compute have waited for a CPU; 0 where no kernel says it.

    Those that hand tokens on wait too, whenever all CPUs compute, and hold nobody up.
    """

    def __init__(self, tasks: Path = Path("/proc/self/task"), clock: Callable[[], float] = time.monotonic) -> None:
        """Watch the threads that the kernel lists in `tasks`."""
        self._tasks, self._clock = tasks, clock
        self._looked, self._last_schedules = clock(), schedules(tasks)
        self._seconds = 0.0

    def __call__(self) -> float:
        """Return seconds of all of them together, up to now."""
        now, times = self._clock(), schedules(self._tasks)
        for task, (ran, waited) in times.items():
            ran_before, waited_before = self._last_schedules.get(task, (0.0, 0.0))
            runnable = ran - ran_before + waited - waited_before
            if runnable > COMPUTING * (now - self._looked):
                self._seconds += waited - waited_before
        self._looked, self._last_schedules = now, times
        return self._seconds


def schedules(tasks: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds that each thread has run, and was ready to run and had no CPU."""
    times = {}
    with suppress(OSError):
        for task in tasks.iterdir():
            with suppress(OSError, ValueError):  # it has ended
                ran, waited, _ = (task / "schedstat").read_text().split()
                times[task.name] = int(ran) / 1e9, int(waited) / 1e9
    return times
