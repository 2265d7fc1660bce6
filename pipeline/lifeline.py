"""A stage ends when the DVC that started it is gone, whatever ended that."""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Asks Linux for SIGHUP once the parent has ended, if that is DVC: no stage may run on as an orphan.

    A hang-up and not SIGTERM, so that a trainer whose whole process group is asked to end can tell its parent's death
    from a second request.
    """
    if sys.platform != "linux" or "DVC_STAGE" not in os.environ:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGHUP)
    # Killed before that call: the parent is init now, and in some containers DVC is init itself.
    if os.getppid() == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes():
        sys.exit("the DVC that started this stage is gone")
