"""A job under submitit that is preempted, or whose time is up: it saves before it is queued again.

submitit takes a signal for both, and ends the process within its handler: what was trained since the last checkpoint
would be lost. Slurm's SIGTERM it ignores, since the job's process must not look as if it had come to its end.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.workers.parent import ORPHANED


@contextmanager
def saved_before_requeue() -> Iterator[None]:
    """Let a training in this block save before submitit's handler of its signal ends the process."""
    number = submitits_signal()
    requeue = signal.getsignal(number) if number else None
    if number is None or not callable(requeue):
        yield
        return
    asked: list[FrameType | None] = []

    def take(_: int, frame: FrameType | None) -> None:
        if signal.getsignal(ORPHANED) is signal.SIG_DFL:  # there is no training, and nothing to save
            requeue(number, frame)
        elif not asked:
            asked.append(frame)
            os.kill(os.getpid(), ORPHANED)

    signal.signal(number, take)
    try:
        yield
    finally:
        signal.signal(number, requeue)
        if asked:
            requeue(number, asked[0])


def submitits_signal() -> signal.Signals | None:
    """Return the signal that submitit has been told to have sent; None where it runs no job here."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
