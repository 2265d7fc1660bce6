"""The order of a sweep: planned or found, run, ranked, its winner written."""

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.errors import MachineError, UserError
from common.words import counted
from pipeline.core.trials import Outcome
from pipeline.sweep_report.write import FIGURES, PAGE, write_report
from pipeline.sweeps.display import print_ranking, showing
from pipeline.sweeps.leash import Leash
from pipeline.sweeps.plan import TRAIN, Request, begin, configured, written
from pipeline.sweeps.record import Folder, SweepRecord
from pipeline.sweeps.run import Launch, Sweep, stopped_by_sigterm
from pipeline.sweeps.standings import Standing, standings
from pipeline.sweeps.winner import write_winner
from pipeline.tracking.run import PARENT, Run, tracked
from pipeline.training.checkpoints import locked

logger = logging.getLogger(__name__)


def sweep(request: Request, path: Path, launch: Launch) -> None:
    """Run a sweep in a folder, from where it is.

    Raises:
        Interrupted: it was asked to stop.
        UserError: it cannot be begun, or trials that are no search's have failed.
    """
    folder = Folder(path)
    with stopped_by_sigterm(), alone_in(folder) as lock, Leash(lock) as leash:
        record = begin(request, folder)
        with parent_run(request, record, folder) as parent:
            running = Sweep(folder, record, request, launch, parent, leash)
            with showing(folder, record):
                running.run()
            conclude(running)


@contextmanager
def alone_in(folder: Folder) -> Iterator[IO[str]]:
    """Keep every other process from running the sweep of this folder, by the lock that is yielded.

    Raises:
        MachineError: another one does, or the folder cannot be written.
    """
    is_new = not folder.path.exists()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = locked(folder.path)
    except BlockingIOError:
        holder = (folder.path / "lock").read_text(encoding="utf-8").strip()
        raise MachineError(f"{folder.path} is run by {holder} wait for it or end it") from None
    except OSError as error:
        ways = "give access there, or name another folder: hydra.sweep.dir=…"
        raise MachineError(f"cannot write {folder.path}: {error.strerror}; {ways}") from error
    try:
        with lock:
            yield lock
    finally:
        if is_new and not folder.record_path.is_file():  # refused before it was one
            shutil.rmtree(folder.path, ignore_errors=True)


@contextmanager
def parent_run(request: Request, record: SweepRecord, folder: Folder) -> Iterator[Run]:
    """Yield the sweep's run in MLflow, whose children the trials are; the same one whenever the sweep goes on."""
    first = next(trial for trial in (*record.trials, None) if trial is None or trial.refused is None)
    config = configured(request, first.values if first else {})
    with tracked(config, folder.path, "sweep", name=f"sweep {record.name}") as run:
        run.tags({"sweep": record.name, "space": " ".join(f"{key}={value}" for key, value in record.space.items())})
        try:
            yield run
        finally:
            os.environ.pop(PARENT, None)  # which jobs in this process have set


def conclude(sweep: Sweep) -> None:
    """Rank the trials, write the winner down, tell MLflow.

    Raises:
        UserError: of a grid, some have failed; of a search, all.
    """
    ranking = standings(sweep.folder, sweep.record, sweep.settings)
    print_ranking(sweep.folder, sweep.record, ranking)
    best = next((standing for standing in ranking if standing.state == "finished"), None)
    if best is not None and sweep.request.stage == TRAIN:
        announce_winner(sweep, best)
    write_report(sweep.folder)
    logger.info(f"written: {sweep.folder.path / PAGE}")
    for path in (sweep.folder.record_path, sweep.folder.path / PAGE, sweep.folder.path / FIGURES):
        sweep.parent.artifact(path)
    refuse_failed(sweep, ranking)


def announce_winner(sweep: Sweep, best: Standing) -> None:
    """Say which trial is the best; where the sweep has a name to know it by, write it as an experiment."""
    record, trial = sweep.record, best.trial
    outcome, settings = outcome_of(best), written(trial.values)
    loss = f"validation loss {outcome.validation_loss} at step {outcome.steps}"
    sweep.parent.tags({"best_trial": trial.number, "best_settings": " ".join(settings)})
    sweep.parent.metrics({"best": {"score": best.score, "validation_loss": outcome.validation_loss}})
    logger.info(f"best: trial {trial.number}, {' '.join(settings)}: {loss}")
    if sweep.settings.name is None:
        logger.info(f"`tunesmith adopt {shlex.join(settings)}` makes it last")
        return
    path = write_winner(record, trial, sweep.checkpoints(trial), loss)
    sweep.parent.artifact(path)
    logger.info(f"written: {path}; `dvc exp run -S experiment={path.stem}` trains it through all stages")


def outcome_of(best: Standing) -> Outcome:
    """Return how the last rung of a trial ended that has finished it."""
    outcomes = [stop.outcome for stop in best.stops if stop.outcome is not None]
    return outcomes[-1]


def refuse_failed(sweep: Sweep, ranking: Sequence[Standing]) -> None:
    """Say why trials failed; end in an error where they were no part of a search.

    Raises:
        UserError: a grid's job has failed, or all trials of a search.
    """
    failed = [standing for standing in ranking if standing.state in ("failed", "refused")]
    for standing in () if sweep.settings.halves else failed:  # else the ranking has the reasons
        settings = " ".join(written(standing.trial.values)) or f"trial {standing.trial.number}"
        print(f"{sweep.request.stage}: {settings}: {standing.reason}", file=sys.stderr)
    finished = any(standing.state == "finished" for standing in ranking)
    if failed and not (finished and sweep.settings.halves):
        raise UserError(f"{len(failed)} of {counted(len(ranking), 'trial')} failed")
