"""The ways in which this package says no."""


class UserError(Exception):
    """The server cannot start or go on as it was set up. The text is one line: what is wrong, and what to do."""


class RequestError(Exception):
    """One request cannot be answered; the server goes on. The text is for the person who asked."""


class Busy(RequestError):
    """Too many wait already."""

    def __init__(self, waiting: int, seconds: float) -> None:
        """With how many wait, and in how many seconds there should be room."""
        self.seconds = max(1, round(seconds))
        super().__init__(f"The queue is full ({waiting} wait): try again in {self.seconds} s.")


class Stopping(RequestError):
    """The server takes nothing in any more, and ends what it was doing."""

    def __init__(self) -> None:
        super().__init__("The server is stopping.")


class EngineError(Exception):
    """An answer failed, and nobody who asked is to blame. The text is for the log: it has no word of a conversation."""
