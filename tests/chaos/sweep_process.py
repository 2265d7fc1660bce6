"""A sweep as a process of its own, watched from outside: through its folder, its checkpoints and /proc."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos_process import LONGEST, MARK, ChaosError, Watched, entries, python

NAME = "chaos"
SWEEP = Path("sweeps") / NAME
CHECKPOINTS = Path(".checkpoints/sweeps") / NAME
WORKERS = (b"popen_loky_posix", b"submitit.core._submit")  # in the command lines of processes that run jobs


@dataclass
class Seen:
    """What a sweep's folder shows at a moment."""

    updates: int = 0
    outcomes: int = 0
    saving: bool = False
    lines: dict[Path, list[int]] = field(default_factory=dict)  # of each job, the updates that it has told of


class SweepStart(Watched):
    """One start of the sweep's command."""

    name, whole = "the sweep", "all"

    def __init__(self, repository: Path, command: list[str], log: Path, environment: dict[str, str]) -> None:
        """Start it; it writes to `log`."""
        self.repository = repository
        super().__init__(command, repository, log, environment)

    def worker(self) -> int | None:
        """Return a process that runs a job: the sweep itself, where it runs them."""
        found = (pid for pid in self.processes() if any(name in b" ".join(entries(pid, "cmdline")) for name in WORKERS))
        own = self.process.pid
        return next((pid for pid in found if holds_job(pid)), own if holds_job(own) else None)

    def reached(self, moment: str, count: int) -> bool:
        """Return whether it has come to a moment."""
        return moment == "start" or has_come(seen(self.repository), moment, count)

    def struck(self, target: str) -> int | None:
        """Return the sweep's process, or a worker's that has a job."""
        return self.worker() if target == "worker" else self.process.pid


def holds_job(pid: int) -> bool:
    """Return whether a process has the lock of a job open."""
    with suppress(OSError):
        return any(
            re.search(r"/step-\d+/lock$", str(link.readlink())) is not None
            for link in Path(f"/proc/{pid}/fd").iterdir()
        )
    return False


def has_come(now: Seen, moment: str, count: int) -> bool:
    """Return whether a sweep has come to a moment."""
    if moment in ("outcome", "end"):
        return now.outcomes >= count
    return now.updates >= count and (now.saving or moment != "save")


def seen(repository: Path) -> Seen:
    """Return what a sweep's folder shows now."""
    now = Seen()
    for log in sorted((repository / SWEEP).glob("*/step-*/log.txt")):
        with suppress(FileNotFoundError):
            text = log.read_text(encoding="utf-8", errors="replace")
            now.lines[log] = [int(step) for step in re.findall(r"^step (\d+)/", text, re.MULTILINE)]
    now.updates = sum(len(set(steps)) for steps in now.lines.values())
    now.outcomes = len(list((repository / SWEEP).glob("*/step-*/outcome.json")))
    checkpoints = (repository / CHECKPOINTS).glob("*/checkpoint-*")
    now.saving = any(not (path / "complete.json").is_file() for path in checkpoints)
    return now


class Mlflow:
    """Where a round's runs go, which can be taken away: its database by a lock, its server by a kill."""

    def __init__(self, folder: Path, kind: str, environment: dict[str, str]) -> None:
        """Start the server, if it is to be one."""
        self.folder, self.database = folder, folder / "mlflow.db"
        self.environment = {key: value for key, value in environment.items() if key != MARK}
        self.port = free_port() if kind == "server" else None
        self.server: subprocess.Popen[bytes] | None = None
        self.lock: sqlite3.Connection | None = None
        self.give_back()

    @property
    def uri(self) -> str:
        """Where runs go."""
        return f"sqlite:///{self.database}" if self.port is None else f"http://127.0.0.1:{self.port}"

    def take_away(self) -> None:
        """Have it answer nobody."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
            self.server = None
        elif self.port is None and self.lock is None:
            self.lock = sqlite3.connect(self.database, check_same_thread=False, timeout=60)
            self.lock.execute("BEGIN EXCLUSIVE")

    def give_back(self) -> None:
        """Have it answer again."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None
        if self.port is not None and self.server is None:
            self.server = self.started()

    def started(self) -> subprocess.Popen[bytes]:
        """Return the server, which listens."""
        store = ["--backend-store-uri", f"sqlite:///{self.database}", "--artifacts-destination", f"{self.folder}/files"]
        command = [
            python(self.environment),
            "-m",
            "mlflow",
            "server",
            *store,
            "--workers",
            "1",
            "--port",
            str(self.port),
        ]
        with (self.folder / "mlflow.log").open("ab") as log:
            server = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + LONGEST
        while not answers(f"http://127.0.0.1:{self.port}/health"):
            if server.poll() is not None or time.monotonic() > until:
                raise ChaosError(f"MLflow's server does not start; see {self.folder}/mlflow.log")
            time.sleep(0.05)
        return server

    def close(self) -> None:
        """End the server."""
        if self.server is not None:
            self.take_away()


@contextmanager
def mlflow_of(folder: Path, kind: str, environment: dict[str, str]) -> Iterator[Mlflow]:
    """Yield an MLflow of a round's own."""
    mlflow = Mlflow(folder, kind, environment)
    try:
        yield mlflow
    finally:
        mlflow.close()


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Return whether a server says that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 -- http, to this machine
            return bool(response.status == 200)
    except OSError:
        return False
