"""A sweep and its jobs: they end when it does, however it ends, and of two processes with one job the later one waits.

A sweep holds a lock on a file of its folder. Each process that runs its jobs waits for that lock beside them, and gets
it when the sweep has let go of it or is dead: the system releases what a killed process held. Locks reach as far as the
disk that is shared, so this holds for workers, for what workers start, and for other machines.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from common.errors import Interrupted
from common.imports import leave_out_sklearn
from pipeline.workers.last_words import POLL, TRY_AGAIN
from pipeline.workers.parent import ORPHANED

LOCK = "lock"  # of a sweep, as of a folder of checkpoints, and of a job

_holders: list[int] = []  # this process, where it runs a sweep
_watched: set[Path] = set()  # sweeps that this process ends with
_busy = threading.Lock()  # held while a job runs in a process that ends with its sweep


class Leash:
    """The hold that a sweep has on its jobs while it is entered."""

    def __init__(self, lock: IO[str]) -> None:
        """With the lock on the sweep's folder."""
        self._lock = lock
        self.reason: str | None = None  # why jobs have been let go

    def __enter__(self) -> "Leash":
        _holders.append(os.getpid())
        return self

    def __exit__(self, *_: object) -> None:
        _holders.clear()

    @contextmanager
    def until_asked(self) -> Iterator[None]:
        """Have jobs save and end when this process is asked to stop; the block then comes to its end by itself.

        Raises:
            Interrupted: it was asked; where it is asked twice, at once.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            if self.reason:
                raise Interrupted(self.reason)
            self.reason = signal.Signals(number).name
            self._lock.close()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except Exception:
            if self.reason is None:  # else it is that jobs have ended
                raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.reason:
            raise Interrupted(f"{self.reason}: the same command goes on")


def runs_here() -> bool:
    """Return whether the sweep runs in this very process, and not only its job."""
    return os.getpid() in _holders


@contextmanager
def one_at_a_time(sweep: Path, job: Path) -> Iterator[None]:
    """Wait until nobody else runs this job; in the block, the process ends with its sweep, saving first."""
    with (job / LOCK).open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(lock.fileno())  # for `begun`
        if runs_here():
            yield
            return
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the sweep hears it, too, and lets go
        leave_out_sklearn()
        with _busy:
            end_with(sweep)
            yield


def begun(job: Path) -> int | None:
    """Return when a process last began a job, by its disk's clock; None where none has."""
    path = job / LOCK
    return path.stat().st_mtime_ns if path.is_file() else None


def holds(sweep: Path) -> bool:
    """Return whether a sweep runs, and has not let its jobs go."""
    with (sweep / LOCK).open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def raise_if_let_go(sweep: Path) -> None:
    """Run no job of a sweep that has let its jobs go.

    Raises:
        Interrupted: it has.
    """
    if not holds(sweep):
        raise Interrupted("the sweep was asked to stop: the same command goes on")


def end_with(sweep: Path) -> None:
    """Have this process end when a sweep lets go or is dead."""
    if sweep not in _watched:
        _watched.add(sweep)
        threading.Thread(target=wait_for_end, args=(sweep,), name="leash", daemon=True).start()


def wait_for_end(sweep: Path) -> None:
    """Wait until a sweep has let go, and have a job in this process save and end; then end with the parent."""
    parent = os.getppid()
    with (sweep / LOCK).open(encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    if _busy.locked():
        os.kill(os.getpid(), ORPHANED)
    while os.getppid() == parent or _busy.locked():  # a parent that lives ends its workers itself
        time.sleep(POLL)
    os._exit(TRY_AGAIN)
