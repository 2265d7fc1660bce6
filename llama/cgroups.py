"""The control groups that this process is in: where a container's limits stand."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Yield the version (1 or 2) and folder of the process's own group for `controller`, then of every group above it.

    A container often sees the topmost folder alone. `root` is where /proc and /sys are looked up.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        path = PurePosixPath(group.lstrip("/"))
        if not controllers:  # version 2: one tree for all controllers
            yield from ((2, mount / part) for part in (path, *path.parents))
        elif controller in controllers.split(","):
            yield from ((1, mount / controller / part) for part in (path, *path.parents))
