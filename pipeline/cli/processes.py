"""Other programs that a verb becomes, or waits for."""

import getpass
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline.workers.parent import hear_of_parents_end


def become(module: str, *arguments: str) -> NoReturn:
    """Go on as `python -m module`: signals, names and the exit status are that program's own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606


def wait_for(module: str, *arguments: str, **variables: str) -> int:
    """Run `python -m module` to its end, and return its status.

    Ctrl-C reaches it by itself, and what it does then is waited for; SIGTERM is handed on. It ends when this process is
    killed. `python`, in what it runs, is this one. `variables` are added to its environment.
    """

    def hand_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    taken = {signal.SIGTERM: hand_on, signal.SIGINT: lambda *_: None}
    environment = with_own_python() | variables
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], env=environment, preexec_fn=hear_of_parents_end
    )
    before = {number: signal.signal(number, handler) for number, handler in taken.items()}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status


def with_own_python() -> dict[str, str]:
    """Return the environment with this interpreter's folder at the front of PATH.

    Also with a name for a user whom the system has none for: DVC and libraries of the stages ask for one.
    """
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])} | missing_name()


def missing_name() -> dict[str, str]:
    """Return the variable that names this process's user, where nothing else does."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # until Python 3.12, and from 3.13 on
        return {"USER": str(os.getuid())}
    return {}
