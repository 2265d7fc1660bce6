"""How many CPUs this process may really use: a container's quota is invisible to os.cpu_count()."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cpus(root: Path = Path("/")) -> int:
    """The smaller of the CPU affinity and the control group's quota rounded down, at least 1.

    One thread more than the quota allows is worse than one fewer: the kernel then stops all of them for the rest of
    each period. `root` is where /proc and /sys are looked up (tests give a tree of their own).
    """
    affinity = len(os.sched_getaffinity(0))
    return max(1, min([affinity, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas in force, in CPUs: of the process's own control group and every group above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if not controllers:  # version 2: one tree for all controllers
            yield from (quota for folder in _upwards(mount, group) if (quota := _quota_v2(folder)))
        elif "cpu" in controllers.split(","):
            yield from (quota for folder in _upwards(mount / "cpu", group) if (quota := _quota_v1(folder)))


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The group's folder and those above it, up to the mount; a container often sees the mount alone."""
    path = PurePosixPath(group.lstrip("/"))
    return (mount / part for part in (path, *path.parents))


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
