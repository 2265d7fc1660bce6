"""Several processes that train together: started here on one machine, or by torchrun over many.

torchrun's own launcher is not used for the first. It hands SIGTERM on as SIGTERM, which a manager that asks every
process itself (Slurm, systemd) makes the second request that ends a trainer at once; it tells its workers nothing of
SIGUSR1; an interruption's status 75 becomes its status 1; and below the line of an error it draws a box. The
environment that it gives to workers is the same here, so that the one and the other can start them.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from omegaconf import OmegaConf

from common.errors import KINDS, UserError
from common.files import atomic_path
from common.words import counted
from pipeline.core.config import Config, RuntimeSettings
from pipeline.workers.last_words import ASKED, POLL, last_words
from pipeline.workers.parent import LAUNCHER, ORPHANED, Handler, named
from pipeline.workers.ranks import is_worker

WORKER = "worker"  # the configuration that workers get
# Seconds that the others have once one has failed: the farewell to MLflow takes up to 20. What they wait for
# does not come any more.
GRACE = 25.0


def workers_wanted(runtime: RuntimeSettings) -> int:
    """Return how many processes this one starts to train; 1 where it does so itself, as every worker does.

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
    """Train in so many processes on this machine and wait for them.

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
        command = (sys.executable, "-m", "pipeline.stages.train", "--config-dir", name, "--config-name", WORKER)
        workers: list[subprocess.Popen[bytes]] = []
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
        self._before: dict[int, Handler] = {}

    @property
    def final(self) -> bool:
        """Whether there has been a second request; that the parent or the terminal is gone counts as none."""
        return sum(number in (signal.SIGTERM, signal.SIGINT) for number in self.taken) > 1

    def __enter__(self) -> "Requests":
        signals = [signal.SIGTERM, signal.SIGINT, ORPHANED]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
            signals.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._take) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.taken.append(number)


def write_settings(config: Config, out: Path, path: Path) -> None:
    """Write a configuration as Hydra reads it: what conf/ holds by now, and the overrides, are in it."""
    settings = {key: literal(group) for key, group in asdict(config).items()}
    hydra = {"run": {"dir": literal(str(out.resolve()))}, "output_subdir": None}
    defaults = ["_self_", {"override hydra/job_logging": "stdout"}]
    OmegaConf.save(OmegaConf.create({"defaults": defaults, "hydra": hydra, **settings}), path)


def literal(value: object) -> object:
    """Return the same with `${` escaped in each text: it stands for itself there."""
    if isinstance(value, dict):
        return {key: literal(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [literal(entry) for entry in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value


def environments(processes: int, folder: str) -> Iterator[dict[str, str]]:
    """Yield what each worker finds in its environment.

    Torchrun's variables and, from us, where it leaves its last words.
    """
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


def supervise(workers: list[subprocess.Popen[bytes]], requests: Requests, folder: Path) -> dict[int, int]:
    """Wait until all have ended, or have had GRACE since one failed; hand requests on.

    Returns:
        Which had ended without last words when the first failure was seen, and with what status: what ends later does
        so because of it.
    """
    forwarded, over = 0, float("inf")
    lost: dict[int, int] = {}
    while any(worker.poll() is None for worker in workers) and time.monotonic() < over and not requests.final:
        if forwarded < len(requests.taken):
            forwarded = len(requests.taken)
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
    """End as the worker did that ended first with a line for the user, if one did.

    Raises:
        Interrupted: it was asked to stop.
        UserError: something was wrong.
    """
    for words in last_words(folder):
        if words["kind"] in KINDS:
            raise KINDS[words["kind"]](words["text"])


def explain(lost: dict[int, int], processes: int, folder: Path) -> NoReturn:
    """End with what is known of workers that failed without a line for the user: a defect, or a kill.

    Raises:
        UserError: one was killed.
    """
    for index, status in lost.items():
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise UserError(f"process {index} of {processes} {how}; the same command goes on from the newest checkpoint")
    print(next((words["text"] for words in last_words(folder)), ""), end="", file=sys.stderr)
    sys.exit(1)
