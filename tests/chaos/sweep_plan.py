"""What is done to one sweep: at which moments it is struck, by what, and how long that lasts.

A round's plan follows from its random numbers alone, so that a round can be played again.
"""

import random
from dataclasses import dataclass
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from typing import Literal

# What can be seen from outside, and how often it is waited for.
MOMENTS = {
    "start": 1,  # of the sweep itself: its imports, its plan
    "update": 4,  # of any trial
    "save": 2,  # a checkpoint that is not complete
    "outcome": 3,  # a trial is through a rung
    "end": 1,  # all are: ranking, report and winner are to be written
}
LAUNCHERS = {"basic": 3, "joblib": 3, "submitit_local": 1}  # and how often each is taken
MLFLOWS = ("database", "server")
DISKS = ("sweeps", ".checkpoints")  # which may be on a file system that fills up
TROUBLES = {"blow": 6, "disk": 1, "mlflow": 1}  # and how often each is


@dataclass(frozen=True)
class Blow:
    """Signals in quick succession, and whom they hit: the `sweep`, a `worker`, or `all`, as their process group.

    Where jobs run in the sweep's own process, that is the worker, too.
    """

    signals: tuple[Signals, ...]
    target: Literal["sweep", "worker", "all"]

    @property
    def kills(self) -> bool:
        """Whether there is no chance to save: by a kill, or by being told twice."""
        return SIGKILL in self.signals or SIGHUP in self.signals or len(self.signals) > 1

    def __str__(self) -> str:
        return f"{'+'.join(number.name for number in self.signals)} to {self.target}"


BLOWS = (
    Blow((SIGKILL,), "sweep"),
    Blow((SIGKILL,), "worker"),
    Blow((SIGKILL,), "all"),
    Blow((SIGTERM,), "sweep"),
    Blow((SIGTERM,), "worker"),
    Blow((SIGTERM,), "all"),
    Blow((SIGINT,), "all"),  # Ctrl-C
    Blow((SIGHUP,), "all"),  # the terminal closes
    Blow((SIGTERM, SIGTERM), "sweep"),
    Blow((SIGINT, SIGINT), "all"),
)


@dataclass(frozen=True)
class FullDisk:
    """The disk of this folder is full, until what stands in the way ends."""

    folder: str

    def __str__(self) -> str:
        return f"full disk under {self.folder}"


@dataclass(frozen=True)
class LostMlflow:
    """MLflow does not answer: for so many seconds, or until all is over."""

    seconds: float | None

    def __str__(self) -> str:
        return "lost MLflow" + (f" for {self.seconds:.0f} s" if self.seconds else " to the end")


@dataclass(frozen=True)
class Harm:
    """Trouble at a moment: no sooner than after so many updates or outcomes, and later by a share of what follows."""

    trouble: Blow | FullDisk | LostMlflow
    moment: str
    share: float  # of all updates, or outcomes
    delay: float  # a share of the time that usually follows

    def __str__(self) -> str:
        at = f"{self.moment} {self.share:.0%}" if self.moment in ("update", "save", "outcome") else self.moment
        return f"{self.trouble} at {at}"


@dataclass(frozen=True)
class Plan:
    """One round."""

    harms: tuple[Harm, ...]
    launcher: str = "basic"
    mlflow: str = "database"

    @property
    def disk(self) -> str | None:
        """The folder that lies on a small file system."""
        return next((harm.trouble.folder for harm in self.harms if isinstance(harm.trouble, FullDisk)), None)

    def __str__(self) -> str:
        return f"{self.launcher}, {self.mlflow}: {'; '.join(map(str, self.harms))}"


def draw(rng: random.Random, launchers: dict[str, int] = LAUNCHERS) -> Plan:
    """Return a plan; its harms come one after the other, each in its part of the sweep."""
    launcher, mlflow, disk = drawn(rng, launchers), rng.choice(MLFLOWS), rng.choice(DISKS)
    count = rng.choice((1, 2, 2, 3, 3))
    harms = [draw_harm(rng, part / count, 1 / count, disk) for part in range(count)]
    return Plan(tuple(harms), launcher, mlflow)


def draw_harm(rng: random.Random, begin: float, part: float, disk: str) -> Harm:
    """Return one harm, in this part of the sweep."""
    moment, kind = drawn(rng, MOMENTS), drawn(rng, TROUBLES)
    if kind == "disk":
        return Harm(FullDisk(disk), "update" if moment == "end" else moment, begin + part * rng.random(), rng.random())
    share, delay = begin + part * rng.random(), rng.random()
    if kind == "mlflow":
        return Harm(LostMlflow(rng.choice((None, 2 + 10 * rng.random()))), moment, share, delay)
    targets = ("sweep", "all") if moment in ("start", "end") else ("sweep", "worker", "all")
    return Harm(rng.choice([blow for blow in BLOWS if blow.target in targets]), moment, share, delay)


def drawn(rng: random.Random, weights: dict[str, int]) -> str:
    """Return one of these, by how often each is to come."""
    (one,) = rng.choices([*weights], [*weights.values()])
    return one
