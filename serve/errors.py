"""The two ways in which this package says no."""


class UserError(Exception):
    """The server cannot start or go on as it was set up. The text is one line: what is wrong, and what to do."""


class RequestError(Exception):
    """One request cannot be answered; the server goes on. The text is for the person who asked."""
