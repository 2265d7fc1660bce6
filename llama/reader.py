"""Writes the prompts of one model beside its steps, one after the other, since a template may take a second."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from llama.turn import Turn


class Reader:
    """A thread that writes prompts."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reader")
        self._last: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a prompt is being written."""
        return self._last is not None and not self._last.done()

    def read(self, turn: Turn, prepare: Callable[[], None], then: Callable[[], None]) -> Future[None]:
        """Write a turn's prompt when its time comes, unless it has been cancelled by then.

        Args:
            turn: whose `reading` it is.
            prepare: writes it.
            then: called when it is done, in another thread.
        """

        def unless_cancelled() -> None:
            if not turn.cancelled.is_set():
                prepare()

        turn.reading = self._last = self._thread.submit(unless_cancelled)
        turn.reading.add_done_callback(lambda _: then())
        return turn.reading

    def close(self) -> None:
        """End it; a prompt that was to be written can be written anew."""
        self._thread.shutdown(cancel_futures=True)
