"""A stage and the DVC that started it: the one ends when the other is gone, and Ctrl-C reaches both."""

import ctypes
import os
import signal
import sys

# Not SIGTERM: a trainer whose whole process group is asked to end must tell its parent's death from a second request.
# Not SIGHUP: nohup turns that off.
ORPHANED = signal.SIGUSR1
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie_to_parent() -> None:
    """Prepares a process that DVC has started, as early as can be: a stage's imports take seconds.

    Linux is asked for ORPHANED once DVC has ended, so that no stage runs on as an orphan. Until the stage takes Ctrl-C
    itself, it ends the process without a word.
    """
    if "DVC_STAGE" not in os.environ:
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ORPHANED)
        # Where DVC was killed before that call, the parent is init or a supervisor now, which has a session of its own.
        if os.getsid(os.getppid()) != os.getsid(0):
            sys.exit("the DVC that started this stage is gone")
