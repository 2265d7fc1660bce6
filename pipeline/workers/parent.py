"""A stage and who started it, DVC, a launcher or a container's starter: it ends with them, and Ctrl-C reaches both."""

import ctypes
import fcntl
import functools
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

# Not SIGTERM: a trainer whose whole process group is asked to end must tell its parent's death from a second request.
# Not SIGHUP: nohup turns that off.
ORPHANED = signal.SIGUSR1
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAUNCHER = "TUNESMITH_LAUNCHER"  # in the environment of a worker: its launcher's process id, and a folder
HELD = "TUNESMITH_HELD"  # in that of a stage in a container: its standard input ends with who started it
IN_IMAGE = "TUNESMITH_IMAGE"  # in that of all that runs in the train image: the image's name, or its digest
STDIN = 0

Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal, as Python's


class Launcher(NamedTuple):
    """The process that has started this one, to train with others (pipeline/workers/launcher.py)."""

    pid: int
    folder: Path


@functools.cache
def launcher() -> Launcher | None:
    """Return who started this worker, taken out of the environment: what a worker starts is no worker."""
    pid, _, folder = os.environ.pop(LAUNCHER, "").partition(" ")
    return Launcher(int(pid), Path(folder)) if pid else None


def tie_to_parent() -> None:
    """Prepare a process that DVC or a launcher has started, as early as can be: a stage's imports take seconds.

    Linux is asked for ORPHANED once the parent has ended, so that no stage runs on as an orphan. Until the stage takes
    Ctrl-C itself, it ends the process without a word.
    """
    is_worker, is_held = "LOCAL_RANK" in os.environ, os.environ.pop(HELD, None) is not None
    if "DVC_STAGE" not in os.environ and not is_worker and not is_held:
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if is_held:
        hear_of_inputs_end()
        return
    hear_of_parents_end()
    if sys.platform == "linux":
        if (started_by := launcher()) is not None and os.getppid() != started_by.pid:
            sys.exit("the launcher that started this process is gone")
        # Where DVC was killed before that call, the parent is init or a supervisor now, which has a session of its own.
        # So has a torchrun's worker.
        if not is_worker and os.getsid(os.getppid()) != os.getsid(0):
            sys.exit("the DVC that started this stage is gone")


def hear_of_parents_end() -> None:
    """Have Linux send this process ORPHANED once its parent has ended; other systems know of no such thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ORPHANED)


def hear_of_inputs_end() -> None:
    """Have Linux send this process ORPHANED once its standard input, a pipe, has ended."""
    fcntl.fcntl(STDIN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(STDIN, fcntl.F_SETSIG, ORPHANED)
    fcntl.fcntl(STDIN, fcntl.F_SETFL, fcntl.fcntl(STDIN, fcntl.F_GETFL) | os.O_ASYNC)
    look = select.poll()
    look.register(STDIN, select.POLLIN)
    if any(event & select.POLLHUP for _, event in look.poll(0)):
        sys.exit("who started this container is gone")


def named(number: int) -> str:
    """Return what asks a stage to stop, when that signal comes."""
    gone = number == ORPHANED and "DVC_STAGE" in os.environ  # by itself, a scheduler may send it
    return "DVC is gone" if gone else signal.Signals(number).name
