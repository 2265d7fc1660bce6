"""Whether a test may have a disk of its own, small or read-only, which lives in a mount namespace and goes with it."""

import os
import shutil
import subprocess
from pathlib import Path

REPO = Path(__file__).parents[2]


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=64k none /tmp"
    return subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True, check=False).returncode == 0


def with_small_disk(folder: str | Path, size: str) -> list[str]:
    """What a command begins with that is to find an empty disk of `size` at `folder`."""
    return ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size={size} none {folder} && exec "$@"', "sh"]


def on_small_disk(folder: str, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of the shell's in the working folder, in which `folder` is an empty disk of `size`."""
    command = [*with_small_disk(folder, size), "sh", "-c", script]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def seen_by(process: int, path: Path) -> Path:
    """A path as a process with disks of its own has it."""
    return Path(f"/proc/{process}/root{path}")
