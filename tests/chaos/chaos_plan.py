"""What is done to one training: at which moments it is struck, with which signals, and what is damaged after it.

A round's plan follows from its random numbers alone, so that a round can be played again.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals

# What can be seen from outside, and how often it is waited for.
MOMENTS = {
    "start": 1,  # of DVC itself
    "imports": 2,  # the trainer is there
    "step": 3,  # an update's line
    "save": 3,  # a checkpoint that is not complete
    "saved": 2,  # one that just became so
    "finish": 1,  # the last update's line: the adapter is to be written, and DVC to take it
}
DAMAGES = ("truncate", "flip", "delete")


@dataclass(frozen=True)
class Blow:
    """Signals in quick succession, and whom they hit: `trainer`, `dvc` or `both`, as their process group.

    Under runtime=docker also the `container`, by the engine, or the `engine`, which is then started again.
    """

    signals: tuple[Signals, ...]
    target: str

    @property
    def kills(self) -> bool:
        """Whether the trainer gets no chance to save: it is killed, or told twice to end."""
        if self.target == "engine":  # what it lets a container do before it ends is its own affair
            return True
        return self.target != "dvc" and (SIGKILL in self.signals or len(self.signals) > 1)

    def __str__(self) -> str:
        return f"{'+'.join(number.name for number in self.signals)} to {self.target}"


BLOWS = (
    *(Blow((number,), target) for number in (SIGKILL, SIGTERM) for target in ("trainer", "dvc", "both")),
    Blow((SIGINT,), "both"),  # Ctrl-C
    Blow((SIGHUP,), "both"),  # the terminal closes
    Blow((SIGTERM, SIGTERM), "trainer"),
)
# `docker kill`, `docker stop` and a restart of the engine twice as often as DVC's own end.
DOCKER_BLOWS = (
    *(Blow((number,), "container") for number in (SIGKILL, SIGTERM) for _ in range(2)),
    *(Blow((SIGTERM,), "engine") for _ in range(2)),
    *(Blow((SIGKILL,), target) for target in ("dvc", "both")),
    Blow((SIGINT,), "both"),
)


@dataclass(frozen=True)
class Damage:
    """What happens to a file of the newest complete checkpoint; which file and where in it are shares from 0 to 1."""

    kind: str
    file: float
    place: float


@dataclass(frozen=True)
class Harm:
    """A blow at a moment, no sooner than update `step`, and later by a share of the time that usually follows it."""

    blow: Blow
    moment: str
    step: int
    delay: float
    damage: Damage | None = None

    def __str__(self) -> str:
        moment = f"{self.moment} {self.step}" if self.moment in ("step", "save", "saved") else self.moment
        return f"{self.blow} at {moment}" + (f", then {self.damage.kind}" if self.damage else "")


@dataclass(frozen=True)
class Plan:
    """One round: `disk` is the size of the file system at first, in checkpoints, or null where there is room."""

    harms: tuple[Harm, ...]
    checkpoints_kept: int = 2
    disk: float | None = None

    def __str__(self) -> str:
        disk = [] if self.disk is None else [f"room for {self.disk:.1f} checkpoints"]
        return "; ".join([*disk, *map(str, self.harms)])


def draw(rng: random.Random, steps: int) -> Plan:
    """A plan for a training of so many updates; its harms come one after the other, each in its part of them."""
    disk = rng.uniform(0.3, 1.8) if rng.random() < 0.2 else None
    count = rng.choice((0, 1) if disk else (1, 2, 2, 3))
    parts = (range(1 + part * steps // count, 1 + (part + 1) * steps // count) for part in range(count))
    return Plan(tuple(draw_harm(rng, part) for part in parts), checkpoints_kept=rng.choice((1, 2)), disk=disk)


def draw_docker(rng: random.Random, steps: int) -> Plan:
    """The same of a training under runtime=docker."""
    count = rng.choice((1, 2, 2, 3))
    parts = (range(1 + part * steps // count, 1 + (part + 1) * steps // count) for part in range(count))
    return Plan(tuple(draw_harm(rng, part, DOCKER_BLOWS) for part in parts), checkpoints_kept=rng.choice((1, 2)))


def draw_harm(rng: random.Random, steps: range, blows: Sequence[Blow] = BLOWS) -> Harm:
    """One blow, at one of these updates or before the first."""
    (moment,) = rng.choices([*MOMENTS], [*MOMENTS.values()])
    blow = rng.choice([blow for blow in blows if blow.target not in ("trainer", "container") or moment != "start"])
    damage = Damage(rng.choice(DAMAGES), rng.random(), rng.random()) if rng.random() < 0.5 else None
    return Harm(blow, moment, rng.choice(steps), rng.random(), damage)
