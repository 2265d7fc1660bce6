"""What all rounds share: prepared data, the sweep's command, and for each launcher the undisturbed sweep."""

import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chaos_bench import copied
from chaos_process import ChaosError, environment, run, tail
from sweep_mlflow import Recorded, recorded
from sweep_process import NAME, SWEEP, SweepStart, seen

from pipeline.sweeps.record import Folder
from pipeline.sweeps.settings import read_settings
from pipeline.sweeps.standings import Standing, standings

DATA = ("model=starter-s", "data.max_rows=76", "data.validation=8", "data.test=8")
# Seven trials, of which one diverges, three go on and one is left; dropout draws random numbers, and a checkpoint comes
# at every second update, which is not where rungs end.
SETTINGS = (
    "hydra/sweeper=halving",
    f"hydra.sweeper.name={NAME}",
    "hydra.sweeper.min_steps=3",
    "hydra.sweeper.max_steps=12",
    "hydra.sweeper.attempts=4",  # more than a plan has blows
    *DATA,
    "runtime.device=cpu",
    "tracking.system_metrics=false",
    "train.lora.r=4",
    "train.lora.dropout=0.1",
    "train.batch_size=2",
    "train.effective_batch=4",
    "train.save_steps=2",
    "train.save_total_limit=3",
    "train.eval_steps=3",
    "train.logging_steps=1",
    "train.max_length=128",
    "train.check_export=false",
    "train.lr=1e-3,4e-3,1,2e-3,5e-4,1.5e-3,3e-3",
)
SAVE_STEPS = 2
OF_LAUNCHERS = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra/launcher=submitit_local",),
}
TRAIN = ("-m", "pipeline.stages.train", "-m")

Ranking = list[tuple[int, int, str, float | None]]  # place, trial, state, score


@dataclass(frozen=True)
class Undisturbed:
    """What the sweep gives when nothing is done to it, and how long what follows each moment takes."""

    ranking: Ranking
    winner: str
    recorded: list[Recorded]  # in MLflow
    updates: int
    outcomes: int
    seconds: dict[str, float]


class SweepBench:
    """A repository with prepared data, and how the sweep is run in a copy of it."""

    def __init__(self, folder: Path, interpreter: str, settings: tuple[str, ...] = ()) -> None:
        """Have it in a folder; `settings` overrule those above."""
        self.folder, self.interpreter, self.settings = folder, interpreter, settings
        self.known: dict[str, Undisturbed] = {}

    @cached_property
    def template(self) -> Path:
        """This project's files, as they are now, with prepared data."""
        template = copied(self.folder / "template")
        run(template, self.environment(self.folder, template), "pipeline.stages.prepare", *DATA)
        return template

    def environment(self, mark: Path, repository: Path) -> dict[str, str]:
        """Return that of all processes of one round."""
        return environment(mark, self.interpreter) | {
            "DVC_ROOT": str(repository),
            "PYTHONPATH": str(repository),
            "COLUMNS": "200",
        }

    def command(self, launcher: str, *more: str) -> list[str]:
        """Return the arguments of Python that run the sweep."""
        return [*TRAIN, *SETTINGS, *self.settings, *OF_LAUNCHERS[launcher], *more]

    def undisturbed(self, launcher: str) -> Undisturbed:
        """Return what the sweep gives with this launcher; it is run once."""
        if launcher not in self.known:
            self.known[launcher] = self.measure(launcher)
        return self.known[launcher]

    def measure(self, launcher: str) -> Undisturbed:
        """Run the sweep with nothing done to it."""
        folder = self.folder / f"undisturbed-{launcher}"
        repository, log = folder / "repository", folder / "start-1.log"
        shutil.copytree(self.template, repository, symlinks=True)
        began, first = time.time(), 0.0  # update
        with SweepStart(repository, self.command(launcher), log, self.environment(folder, repository)) as start:
            while start.alive():
                first = first or (time.time() if seen(repository).updates else 0.0)
                time.sleep(0.05)
            if start.end():
                raise ChaosError(f"the undisturbed sweep does not end well:\n{tail(log)}")
        end, last = time.time(), max(path.stat().st_mtime for path in (repository / SWEEP).glob("*/*/outcome.json"))
        run(repository, self.environment(folder, repository), "pipeline", "deliver")
        now = seen(repository)
        update = (last - first) / now.updates
        seconds = {"start": first - began, "update": update, "save": update / 4, "outcome": update, "end": end - last}
        known = recorded(f"sqlite:///{repository}/mlflow.db")
        return Undisturbed(ranking(repository), winner(repository), known, now.updates, now.outcomes, seconds)


def standings_of(repository: Path) -> list[Standing]:
    """Return the trials of a sweep, the best first."""
    folder = Folder(repository / SWEEP)
    record = folder.read()
    return standings(folder, record, read_settings(record.settings))


def ranking(repository: Path) -> Ranking:
    """Return who came where, by what score."""
    return [(each.place, each.trial.number, each.state, each.score) for each in standings_of(repository)]


def winner(repository: Path) -> str:
    """Return the winner's file."""
    path = repository / f"conf/experiment/{NAME}-best.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else "(none)"
