"""By what this process makes what it makes: the state of the code, libraries, machine."""

import platform
from collections.abc import Iterable
from importlib.metadata import version

from pipeline.core.code import digests, last_commit, uncommitted
from pipeline.core.records import Making


def this_making(libraries: Iterable[str], device: str, processes: int = 1) -> Making:
    """Return it, for a record.

    Args:
        libraries: packages whose versions count.
        device: `cpu`, or the card's name.
        processes: that work on it together.
    """
    return Making(
        commit=last_commit(),
        uncommitted=uncommitted(),
        code=digests(),
        libraries={"python": platform.python_version(), **{name: version(name) for name in libraries}},
        machine=platform.machine() if device == "cpu" else device,
        processes=processes,
    )
