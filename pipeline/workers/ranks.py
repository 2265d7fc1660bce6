"""Which of the processes that train together this one is, as torchrun's variables say."""

import os


def is_worker() -> bool:
    """Return whether a launcher has started this process, with others."""
    return "LOCAL_RANK" in os.environ


def rank() -> int:
    """Return the index of this process among all that train together; the first does what is to be done once."""
    return int(os.environ.get("RANK", 0)) if is_worker() else 0


def local_rank() -> int:
    """Return its index among those of its machine, and that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1)) if is_worker() else 1
