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


def on_small_disk(folder: str, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of the shell's in the working folder, in which `folder` is an empty disk of `size`."""
    mounted = f"mount -t tmpfs -o size={size} none {folder} && {script}"
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted], env=environment, capture_output=True, text=True, check=True
    )
