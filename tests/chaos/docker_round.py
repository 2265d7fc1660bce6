"""A round of `make chaos` under runtime=docker: the engine kills or stops the container, or is restarted itself."""

import os
import signal
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

import docker
from chaos_process import GONE_WITHIN, LONGEST, MARK, POLL, ChaosError, Start, entries
from chaos_round import TrainRound
from docker.errors import DockerException
from docker.models.containers import Container

# Of the engine that DOCKER_HOST names, or of the machine's.
ENGINE = Path(os.environ.get("DOCKER_PIDFILE", "/var/run/docker.pid"))
STOP_PATIENCE = 120  # seconds that a stopped container has to save
# The mark by which a round knows its processes reaches them in the container, too.
SETTINGS = ("runtime=docker", f"runtime.docker.environment=[HF_HUB_OFFLINE,{MARK}]")


class DockerStart(Start):
    """One `dvc repro train` whose trainer is in a container."""

    def __init__(self, repository: Path, checkpoints: Path, log: Path, environment: dict[str, str]) -> None:
        """Starts it; it writes to `log`."""
        self.label = f"tunesmith.repository={repository.resolve()}"
        super().__init__(repository, checkpoints, log, environment)

    def trains(self, pid: int) -> bool:
        """Whether a process is the train stage's in the container, and not who waits for it."""
        return super().trains(pid) and any(entry.startswith(b"TUNESMITH_IMAGE=") for entry in entries(pid, "environ"))

    def containers(self) -> list[Container]:
        """The containers of this repository, also those that have ended."""
        with closing(docker.from_env()) as engine:
            return engine.containers.list(all=True, filters={"label": self.label}, ignore_removed=True)

    def strike(self, target: str, signals: tuple[int, ...], gap: float) -> bool:
        """Has the engine kill or stop the container, or restarts it; other blows are those of every start."""
        if target not in ("container", "engine"):
            return super().strike(target, signals, gap)
        if not self.alive():
            return False
        if target == "engine":
            restart_engine()
            return True
        running = [container for container in self.containers() if container.status == "running"]
        with suppress(DockerException):  # it has just ended
            for container in running:
                if signal.SIGKILL in signals:
                    container.kill()
                else:
                    container.stop(timeout=STOP_PATIENCE)
        return bool(running)

    def orphans(self) -> list[int]:
        """Waits for what it has started to end, containers among it, and returns what does not: processes.

        Raises:
            ChaosError: a container runs on.
        """
        left, until = super().orphans(), time.monotonic() + GONE_WITHIN
        while running := [container for container in self.containers() if container.status == "running"]:
            if time.monotonic() > until:
                raise ChaosError(f"containers {[container.short_id for container in running]} run on after DVC")
            time.sleep(POLL)
        return left


class DockerRound(TrainRound):
    """A round whose starts are DockerStart."""

    def started(self) -> DockerStart:
        """The stage, on its way."""
        return DockerStart(self.repository, self.checkpoints, self.next_log(), self.environment)

    def compare(self) -> None:
        """What the training gave in the end, and whether a container is left of it."""
        super().compare()
        label = f"tunesmith.repository={self.repository.resolve()}"
        with closing(docker.from_env()) as engine:
            left = engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        if left:
            self.blame("orphans", f"containers {[container.short_id for container in left]} are left")


def can_restart() -> bool:
    """Whether this process may end the engine and start it again."""
    return os.getuid() == 0 and ENGINE.is_file() and bool(entries(int(ENGINE.read_text()), "cmdline"))


def restart_engine() -> None:
    """Ends the engine, as its machine's end would, and starts it again with its own command line.

    Raises:
        ChaosError: it does not end, or does not answer again.
    """
    pid = int(ENGINE.read_text())
    command = [part.decode() for part in entries(pid, "cmdline") if part]
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + LONGEST
    while entries(pid, "cmdline") not in ([], [b""]):
        if time.monotonic() > until:
            raise ChaosError("the engine does not end")
        time.sleep(POLL)
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, start_new_session=True, stdin=quiet, stdout=quiet, stderr=quiet)
    while not answers():
        if time.monotonic() > until:
            raise ChaosError("the engine does not answer again")
        time.sleep(0.2)


def answers() -> bool:
    """Whether an engine is there."""
    try:
        with closing(docker.from_env()) as engine:
            return bool(engine.ping())
    except DockerException:
        return False
