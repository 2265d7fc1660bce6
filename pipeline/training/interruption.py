"""Being asked to stop: by a signal, by the death of the parent, or because the time is up."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import psutil
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.errors import Interrupted
from pipeline.training.collectives import first_value
from pipeline.workers.last_words import asked_by_launcher
from pipeline.workers.parent import ORPHANED, Handler, launcher, named

REQUESTS = (signal.SIGTERM, signal.SIGINT)


class EvaluationStopped(Exception):
    """A request to stop came while the validation loss was measured; it is measured after resumption."""


class Interruption:
    """Takes the signals that ask a process to end, and minds a time limit, while it is entered.

    Outside of `deferred` a signal raises `Interrupted` at once; inside, it only sets `reason`, for training to stop at
    its next update. A second SIGTERM or SIGINT ends the process at once. When the terminal or the parent is gone,
    SIGHUP or ORPHANED comes, often together with one of those, and counts as no second one.
    """

    def __init__(self, time_limit: float | None = None) -> None:
        """With `time_limit` in seconds since the process began, or the one that launched it; without, no limit."""
        self.reason: str | None = None
        self.step = 0  # of the newest checkpoint
        self._deferred = False
        self._started = process_began()
        self._time_limit = time_limit
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            signals = [*REQUESTS, ORPHANED]
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
                signals.append(signal.SIGHUP)
            self._before = {number: signal.signal(number, self._take) for number in signals}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a request wait while this block runs."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def time_is_up(self, reserve: float) -> bool:
        """Return whether less than `reserve` seconds are left; sets `reason` if so."""
        if self._time_limit is not None and time.time() - self._started + reserve > self._time_limit:
            self.reason = self.reason or "the time limit"
            return True
        return False

    def raise_if_asked(self) -> None:
        """End the stage with the line that says where it goes on.

        Raises:
            Interrupted: there has been a request.
        """
        if self.reason and self.step:
            raise Interrupted(f"{self.reason}: resumable at step {self.step}; the same command goes on from there")
        if self.reason:
            raise Interrupted(f"{self.reason}: stopped before the first update; the same command starts again")

    def _take(self, number: int, frame: FrameType | None) -> None:
        handed_on = number == ORPHANED and launcher() is not None
        self.reason = self.reason or (asked_by_launcher() if handed_on else named(number))
        if number in REQUESTS:
            for request in REQUESTS:
                signal.signal(request, signal.SIG_DFL)
        if not self._deferred:
            self.raise_if_asked()


def process_began() -> float:
    """Return when this process began, or that which launched it; seconds since the epoch."""
    try:
        return psutil.Process(started_by.pid if (started_by := launcher()) else None).create_time()
    except psutil.NoSuchProcess:  # the launcher has just been killed
        return psutil.Process().create_time()


class StopWhenAsked(TrainerCallback):
    """Ends training with a checkpoint at the first update after a request, or while that still fits the time limit.

    Of several processes it is enough that one is asked: all hear of it at the same update, where they stop together.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        self.began = time.monotonic()
        self.longest = 0.0  # seconds from one update's start to the next one's: evaluation and saving included

    def asked(self) -> bool:
        """Return whether any process has been asked to stop, or has no time left."""
        reason = first_value(self.interruption.reason)
        if reason is not None:  # else a signal of this very moment would be forgotten
            self.interruption.reason = reason
        return reason is not None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Train nothing if the request came before."""
        self.began = time.monotonic()
        self.interruption.time_is_up(0)
        if self.asked():
            control.should_training_stop = True

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Time the updates."""
        now = time.monotonic()
        self.longest = max(self.longest, now - self.began) if state.global_step else 0.0
        self.began = now

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Ask for a checkpoint, and no evaluation before it."""
        # Twice the longest: one more update, and the checkpoint after it.
        self.interruption.time_is_up(2 * self.longest)
        if self.asked():
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Note where a resumption would start."""
        self.interruption.step = state.global_step

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Break a long evaluation off, for a request or the time limit."""
        self.interruption.time_is_up(self.longest)
        if self.asked():
            raise EvaluationStopped
