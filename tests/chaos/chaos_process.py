"""`dvc repro train` as a process of its own, watched from outside: through its output, its checkpoints and /proc."""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "TUNESMITH_CHAOS"  # in the environment of all that a round starts; its value is the round's folder
POLL = 0.002  # seconds; a checkpoint of starter-s takes some 50 ms to write
LONGEST = 600.0  # seconds that a start may take
GONE_WITHIN = 60.0  # seconds in which nothing may be left once DVC is gone


class ChaosError(Exception):
    """A start took longer than LONGEST, or a command that nothing was done to ended badly."""


class Watched:
    """A command in a session of its own, watched from outside; what is left of it is killed at the end."""

    name = ""  # in errors
    whole = ""  # the target that is the session

    def __init__(self, command: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
        """Starts `python -m command`; it writes to `log`."""
        self.log = log
        self.mark = f"{MARK}={environment[MARK]}".encode()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [python(environment), *command],
                cwd=folder, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def text(self) -> str:
        """What was printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> list[int]:
        """All processes of the round that live."""
        pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
        return [pid for pid in pids if self.mark in entries(pid, "environ")]

    def reached(self, moment: str, count: int) -> bool:
        """Whether it has come to a moment."""
        raise NotImplementedError

    def struck(self, target: str) -> int | None:
        """The process that a blow is for; None where there is none now."""
        raise NotImplementedError

    def wait_for(self, moment: str, count: int) -> bool:
        """Waits until the moment has come; false if it ended before."""
        until = time.monotonic() + LONGEST
        while self.alive():
            if self.reached(moment, count):
                return True
            if time.monotonic() > until:
                raise ChaosError(f"no {moment} {count} after {LONGEST:.0f} s")
            time.sleep(POLL)
        return False

    def strike(self, target: str, signals: tuple[int, ...], gap: float) -> bool:
        """Sends the signals, `gap` seconds apart; false if what they are for has ended, or is not there yet."""
        pid = self.struck(target)
        if not self.alive() or pid is None:
            return False
        with suppress(ProcessLookupError):
            for number in signals:
                (os.killpg if target == self.whole else os.kill)(pid, number)
                time.sleep(gap if len(signals) > 1 else 0)
        return True

    def end(self) -> int:
        """Waits for it and returns its status."""
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise ChaosError(f"{self.name} does not end within {LONGEST:.0f} s") from None

    def orphans(self) -> list[int]:
        """Waits for what it has started to end, and returns what does not."""
        until = time.monotonic() + GONE_WITHIN
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(POLL)
        return left


class Start(Watched):
    """One `dvc repro train` with its trainer."""

    name, whole = "DVC", "both"

    def __init__(self, repository: Path, checkpoints: Path, log: Path, environment: dict[str, str]) -> None:
        """Starts it; it writes to `log`."""
        self.checkpoints = checkpoints
        super().__init__(["-m", "dvc", "repro", "train"], repository, log, environment)

    def steps(self) -> list[int]:
        """The updates whose lines were printed so far."""
        return [int(step) for step in re.findall(r"^step (\d+)/", self.text(), re.MULTILINE)]

    def went_on_from(self) -> int | None:
        """The step of the checkpoint that it resumed from, 0 for none; null if it ended before that was known."""
        found = re.search(r"^resuming from .*/checkpoint-(\d+)$", self.text(), re.MULTILINE)
        return int(found[1]) if found else 0 if self.steps() else None

    def newest_checkpoint(self) -> tuple[int, bool] | None:
        """Step, and whether it is complete."""
        newest = max(((step_of(path), path) for path in self.checkpoints.glob("*/checkpoint-*")), default=None)
        return newest and (newest[0], (newest[1] / "complete.json").is_file())

    def trainer(self) -> int | None:
        """The process of the train stage."""
        return next(filter(self.trains, self.processes()), None)

    def trains(self, pid: int) -> bool:
        """Whether a process is the train stage's."""
        return b"pipeline.stages.train" in entries(pid, "cmdline")

    def reached(self, moment: str, step: int) -> bool:
        """Whether the moment has come; no moment but `start` and `imports` comes before an update's line."""
        if moment in ("start", "imports"):
            return moment == "start" or self.trainer() is not None
        steps = self.steps()
        if moment in ("step", "finish") or not steps:
            return bool(steps) and steps[-1] >= step
        newest = self.newest_checkpoint()
        return newest is not None and newest[0] >= step and newest[1] == (moment == "saved")

    def struck(self, target: str) -> int | None:
        """DVC's process, or the trainer's."""
        return self.trainer() if target == "trainer" else self.process.pid


def environment(mark: Path, interpreter: str) -> dict[str, str]:
    """This process's environment less what would disturb DVC: with one thread, no GPU, and caches below `mark`."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "PYTHONPATH"))}
    return ours | {
        MARK: str(mark),
        "PATH": f"{Path(interpreter).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(mark / "datasets"),
        "DVC_SITE_CACHE_DIR": str(mark / "site"),
        "CI": "true",  # DVC then starts no background process that looks for a newer DVC
        "UNSLOTH_FORCE_CPU": "1",
    }


def python(environment: dict[str, str]) -> str:
    """The interpreter that DVC finds as `python`."""
    return f"{environment['PATH'].split(':')[0]}/python"


def run(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """What `python -m ...` prints.

    Raises:
        ChaosError: it ends with another status than 0.
    """
    done = subprocess.run(
        [python(environment), "-m", *arguments], cwd=folder, env=environment,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ChaosError(f"{' '.join(arguments)} ended with {done.returncode} in {folder}:\n{done.stdout[-4000:]}")
    return done.stdout


def ordinary_signals() -> None:
    """Takes back what a shell has set for background jobs: what is ignored here, a child would ignore, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def step_of(checkpoint: Path) -> int:
    """The N of checkpoint-N."""
    return int(checkpoint.name.rpartition("-")[2])


def entries(pid: int, name: str) -> list[bytes]:
    """What /proc says in `environ` or `cmdline`; nothing for a process that has ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0")
    except OSError:
        return []


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if log.is_file() else ""
