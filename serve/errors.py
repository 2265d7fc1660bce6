"""The ways in which the engine says no."""

from llama.errors import RequestError


class Busy(RequestError):
    """Too many wait already."""

    def __init__(self, waiting: int, seconds: float) -> None:
        """With how many wait, and in how many seconds there should be room."""
        self.seconds = max(1, round(seconds))
        super().__init__(f"The queue is full ({waiting} wait): try again in {self.seconds} s.")


class MadeWay(RequestError):
    """Nobody read the answer, and others waited."""

    def __init__(self) -> None:
        super().__init__("While nobody read it, the answer made way for others who waited.")


class Stopping(RequestError):
    """The server takes nothing in any more, and ends what it was doing."""

    def __init__(self) -> None:
        super().__init__("The server is stopping.")
