"""The one exception that users are meant to read, and those of its kinds that are told apart."""


class UserError(Exception):
    """Something outside the code is wrong: a setting, a file, a disk, a network.

    Its message is one line that says what is wrong, where, and what to do. A stage prints that line
    and exits with status 1; every other exception is a defect and keeps its traceback.
    """


class Interrupted(UserError):
    """The stage was asked to stop and can be gone on with: by a signal, or because its time was up."""


class MachineError(UserError):
    """The machine stands in the way, and not the settings: a disk that is full, another process that trains the same.

    Once it is mended, the same command goes on.
    """


class Hopeless(UserError):
    """A trial of a sweep need not go on: it has diverged, or lies far behind the others."""


KINDS = {kind.__name__: kind for kind in (UserError, Interrupted, MachineError, Hopeless)}
