"""Several processes that train together: started here on one machine, or by torchrun over many.

torchrun's own launcher is not used for the first. It hands SIGTERM on as SIGTERM, which a manager that asks every
process itself (Slurm, systemd) makes the second request that ends a trainer at once; it tells its workers nothing of
SIGUSR1; an interruption's status 75 becomes its status 1; and below the line of an error it draws a box. The
environment that it gives to workers is the same here, so that the one and the other can start them.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from omegaconf import OmegaConf

from pipeline.config import Config, RuntimeSettings
from pipeline.errors import Interrupted, UserError
from pipeline.files import atomic_path, write_json
from pipeline.lifeline import LAUNCHED, LAUNCHER, ORPHANED, named
from serve.words import counted

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on
WORKER = "worker"  # the configuration that workers get
ASKED = "asked"  # a file that says why they are asked to stop
# Seconds that the others have once one has failed: the farewell to MLflow takes up to 20. What they wait for
# does not come any more.
GRACE = 25.0
POLL = 0.05  # seconds
HANDED_ON = 2.0  # seconds within which the launcher hands on what it is asked, or is gone


def is_worker() -> bool:
    """Whether a launcher has started this process, with others."""
    return "LOCAL_RANK" in os.environ


def rank() -> int:
    """The index of this process among all that train together; the first does what is to be done once."""
    return int(os.environ.get("RANK", 0)) if is_worker() else 0


def local_rank() -> int:
    """Its index among those of its machine, and that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0))


def world() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1)) if is_worker() else 1


def workers_wanted(runtime: RuntimeSettings) -> int:
    """How many processes this one starts to train; 1 where it does so itself, as every worker does.

    Raises:
        UserError: there are not as many GPUs.
    """
    if is_worker() or runtime.processes == 1:
        return 1
    import torch  # which takes seconds

    gpus = torch.cuda.device_count() if runtime.device != "cpu" else 0
    if runtime.processes == "auto":
        return max(gpus, 1)
    if gpus and runtime.processes > gpus:
        seen = f"PyTorch sees {counted(gpus, 'GPU')}"
        raise UserError(f"runtime.processes is {runtime.processes} and {seen}; take {gpus}, or auto")
    return runtime.processes


def launch(config: Config, out: Path, processes: int) -> None:
    """Trains in so many processes on this machine and waits for them.

    What asks this process to stop is handed on, and they save first; a second time it ends all at once. They end, too,
    when this process does.

    Args:
        config: that they train with.
        out: where their outputs go.
        processes: at least 2.

    Raises:
        Interrupted: they were asked to stop.
        UserError: one of them failed, with its line; or was killed.
    """
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as name, Requests() as requests:
        folder = Path(name)
        write_settings(config, out, folder / f"{WORKER}.yaml")
        command = (sys.executable, "-m", "pipeline.train", "--config-dir", name, "--config-name", WORKER)
        workers: list[subprocess.Popen] = []
        try:
            for environment in environments(processes, name):
                # A group of their own keeps the terminal's Ctrl-C, which is handed on, from reaching them twice.
                workers.append(subprocess.Popen(command, env=environment, process_group=0, stdin=subprocess.DEVNULL))
            lost = supervise(workers, requests, folder)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        if not any(worker.returncode for worker in workers):
            return
        raise_last_words(folder)
        if not requests.taken:
            explain(lost, processes, folder)
    signal.signal(requests.taken[-1], signal.SIG_DFL)
    os.kill(os.getpid(), requests.taken[-1])


class Requests:
    """Takes the signals that ask this process to stop while it is entered, in the order in which they come."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self._before: dict[int, Any] = {}

    @property
    def final(self) -> bool:
        """Whether there has been a second request; that the parent or the terminal is gone counts as none."""
        return sum(number in (signal.SIGTERM, signal.SIGINT) for number in self.taken) > 1

    def __enter__(self) -> "Requests":
        wanted = [signal.SIGTERM, signal.SIGINT, ORPHANED]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
            wanted.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._take) for number in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.taken.append(number)


def write_settings(config: Config, out: Path, path: Path) -> None:
    """Writes a configuration as Hydra reads it: what conf/ holds by now, and the overrides, are in it."""
    settings = literal(asdict(config))
    hydra = {"run": {"dir": literal(str(out.resolve()))}, "output_subdir": None}
    defaults = ["_self_", {"override hydra/job_logging": "stdout"}]
    OmegaConf.save(OmegaConf.create({"defaults": defaults, "hydra": hydra, **settings}), path)


def literal(value: Any) -> Any:
    """The same with `${` escaped in each text: it stands for itself there."""
    if isinstance(value, dict):
        return {key: literal(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [literal(entry) for entry in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def environments(processes: int, folder: str) -> Iterator[dict[str, str]]:
    """What each worker finds in its environment: torchrun's variables and, from us, where it leaves its last words."""
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for index in range(processes):
        yield {
            "OMP_NUM_THREADS": str(threads),
            "GLOO_SOCKET_IFNAME": "lo",  # else it asks what address the host's name has
            **os.environ,
            LAUNCHER: f"{os.getpid()} {folder}",
            "RANK": str(index),
            "LOCAL_RANK": str(index),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }


def supervise(workers: list[subprocess.Popen], requests: Requests, folder: Path) -> dict[int, int]:
    """Waits until all have ended, or have had GRACE since one failed; hands requests on.

    Returns:
        Which had ended without last words when the first failure was seen, and with what status: what ends later does
        so because of it.
    """
    told, over = 0, float("inf")
    lost: dict[int, int] = {}
    while any(worker.poll() is None for worker in workers) and time.monotonic() < over and not requests.final:
        if told < len(requests.taken):
            told = len(requests.taken)
            with atomic_path(folder / ASKED) as temporary:  # a worker may look at any time
                temporary.write_text(named(requests.taken[0]), encoding="utf-8")
            for worker in workers:
                worker.send_signal(ORPHANED)
        statuses = {index: worker.poll() for index, worker in enumerate(workers)}
        if over == float("inf") and (any(statuses.values()) or any(folder.glob("*.json"))):
            over = time.monotonic() + GRACE
            lost = {i: status for i, status in statuses.items() if status and not (folder / f"{i}.json").is_file()}
        time.sleep(POLL)
    return lost


def raise_last_words(folder: Path) -> None:
    """Ends as the worker did that ended first with a line for the user, if one did.

    Raises:
        Interrupted: it was asked to stop.
        UserError: something was wrong.
    """
    for said in last_words(folder):
        if said["kind"] == "Interrupted":
            raise Interrupted(said["text"])
        if said["kind"] == "UserError":
            raise UserError(said["text"])


def explain(lost: dict[int, int], processes: int, folder: Path) -> NoReturn:
    """Ends with what is known of workers that failed without a line for the user: a defect, or a kill.

    Raises:
        UserError: one was killed.
    """
    for index, status in lost.items():
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise UserError(f"process {index} of {processes} {how}; the same command goes on from the newest checkpoint")
    print(next((said["text"] for said in last_words(folder)), ""), end="", file=sys.stderr)
    sys.exit(1)


def last_words(folder: Path) -> list[dict[str, Any]]:
    """What workers said when they ended, the earliest first."""
    said = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return sorted(said, key=lambda words: words["at"])


@contextmanager
def reported() -> Iterator[None]:
    """In a worker of `launch`, leaves the line of an error to that, which says it once for all, and ends."""
    try:
        yield
    except Exception as error:
        folder = launcher_folder()
        if folder is None:
            raise
        kind = "Interrupted" if isinstance(error, Interrupted) else "UserError"
        text = str(error)
        if not isinstance(error, UserError):
            kind, text = "defect", traceback.format_exc()
        write_json(folder / f"{rank()}.json", {"kind": kind, "text": text, "at": time.monotonic()})
        sys.exit(TRY_AGAIN if kind == "Interrupted" else 1)


def launcher_folder() -> Path | None:
    """Where the launcher of this process takes its last words; None where there is none, or none any more."""
    return LAUNCHED.folder if LAUNCHED is not None and os.getppid() == LAUNCHED.pid else None


def asked_by_launcher() -> str:
    """Why ORPHANED came: what the launcher of this process hands on, or that it is gone.

    Linux says the latter once for each of the launcher's threads, and at first it still is the parent. A scheduler that
    signals all processes may reach this one before the launcher has handed it on.
    """
    for _ in range(round(HANDED_ON / POLL)):
        folder = launcher_folder()
        if folder is None:
            return "the launcher is gone"
        if (folder / ASKED).is_file():
            return (folder / ASKED).read_text(encoding="utf-8")
        time.sleep(POLL)
    return ORPHANED.name
