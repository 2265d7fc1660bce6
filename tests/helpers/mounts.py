"""Whether a test may have a disk of its own, small or read-only, which lives in a mount namespace and goes with it."""

import shutil
import subprocess


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=64k none /tmp"
    return subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True, check=False).returncode == 0
