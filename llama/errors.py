"""The ways in which an answer fails."""


class RequestError(Exception):
    """One request cannot be answered; the server goes on. The text is for the person who asked."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        """Say what is wrong, and to programs: `code` by OpenAI's names, and which field it is (`param`)."""
        super().__init__(message)
        self.code, self.param = code, param


class ModelError(RequestError):
    """The same where the model is to blame, and not the request."""


class EngineError(Exception):
    """An answer failed, and nobody who asked is to blame. The text is for the log: it has no word of a conversation."""
