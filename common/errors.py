"""The one exception that users are meant to read."""


class UserError(Exception):
    """Something outside the code is wrong: a setting, a file, a disk, a network.

    Its message is one line that says what is wrong, where, and what to do. A stage prints that line
    and exits with status 1; every other exception is a defect and keeps its traceback.
    """


class Interrupted(UserError):
    """The stage was asked to stop and can be gone on with: by a signal, or because its time was up."""
