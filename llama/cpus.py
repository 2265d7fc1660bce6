"""How many CPUs this process may really use: a container's quota is invisible to os.cpu_count()."""

import os
from pathlib import Path

from llama.cgroups import groups


def usable_cpus(root: Path = Path("/")) -> int:
    """Return the smaller of the CPU affinity and the control group's quota rounded down, at least 1.

    One thread more than the quota allows is worse than one fewer: the kernel then stops all of them for the rest of
    each period. `root` is where /proc and /sys are looked up (tests give a tree of their own).
    """
    read = {1: _quota_v1, 2: _quota_v2}
    quotas = [quota for version, folder in groups(root, "cpu") if (quota := read[version](folder))]
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas)]))


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
