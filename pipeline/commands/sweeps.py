"""Sweeps by name: the list, one's ranking, how one goes on, and the room that its checkpoints take."""

import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common.errors import UserError
from common.words import counted
from pipeline.commands.checkpoints import ago, size
from pipeline.core.composition import CONF, compose
from pipeline.core.config import load
from pipeline.core.paths import root
from pipeline.core.trials import OUTCOME
from pipeline.sweep_report.write import PAGE, write_report
from pipeline.sweeps.display import print_ranking
from pipeline.sweeps.plan import extended
from pipeline.sweeps.record import ROOT, SWEEP, Folder, SweepRecord
from pipeline.sweeps.settings import read_settings
from pipeline.sweeps.standings import Standing, standings
from pipeline.training.checkpoints import ASIDE, checkpoints, in_use

UNFINISHED = ("waiting", "running", "stopped", "passed")


def find(name: str) -> Folder:
    """Return the folder of a sweep, by its name or its path.

    Raises:
        UserError: there is no such sweep; the message has those that there are.
    """
    for path in (ROOT / name, Path(name)):
        if (path / SWEEP).is_file():
            return Folder(path)
    there = ", ".join(folder.path.name for folder in every()) or "none"
    raise UserError(f"{name} is no sweep; in {ROOT}/ there are: {there}")


def find_idle(name: str) -> Folder:
    """Return the folder of a sweep that does not run.

    Raises:
        UserError: it runs, or there is none.
    """
    folder = find(name)
    if in_use(folder.path):
        raise UserError(f"{name} is running; end it first, or wait for it")
    return folder


def every() -> list[Folder]:
    """Return all sweeps below sweeps/, the one that was planned last first."""
    found = sorted(ROOT.glob(f"*/{SWEEP}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [Folder(path.parent) for path in found]


def ranking_of(folder: Folder) -> tuple[SweepRecord, list[Standing]]:
    """Return a sweep and its trials, the best first."""
    record = folder.read()
    return record, standings(folder, record, read_settings(record.settings))


def show_all() -> None:
    """Print a line for each sweep.

    Raises:
        UserError: files of some cannot be read, which are not among them.
    """
    if not (folders := every()):
        print(f"no sweeps in {ROOT}/; tunesmith train -m sweep=halving begins one")
        return
    table = Table("name", "stage", "trials", "state", "best", "checkpoints", "age", title=str(ROOT))
    damaged = []
    for folder in folders:
        try:
            table.add_row(*row(folder))
        except UserError as error:
            damaged.append(str(error))
    Console().print(table)
    if damaged:
        raise UserError("; ".join(damaged))


def row(folder: Folder) -> tuple[str, ...]:
    """Return a sweep's line."""
    record, ranking = ranking_of(folder)
    best = next((each.score for each in ranking if each.score is not None), None)
    shown = "-" if best is None else f"{best:.5g}"
    megabytes = sum(size(place) for place in places(record)) / 1e6
    age = ago(folder.record_path.stat().st_mtime)
    return record.name, record.stage, str(len(ranking)), state(folder, ranking), shown, f"{megabytes:,.0f} MB", age


def state(folder: Folder, ranking: list[Standing]) -> str:
    """Return how far a sweep is, in a few words."""
    if in_use(folder.path):
        return "running"
    left = sum(standing.state in UNFINISHED for standing in ranking)
    failed = sum(standing.state in ("failed", "refused") for standing in ranking)
    words = [f"{left} to go on with"] if left else ["finished"]
    return ", ".join([*words, f"{failed} failed"] if failed else words)


def show(name: str) -> None:
    """Print the ranking of a sweep, over or not, and write its report."""
    folder = find(name)
    record, ranking = ranking_of(folder)
    print_ranking(folder, record, ranking)
    write_report(folder)
    print(f"written: {folder.path / PAGE}")


def arguments(name: str, retry: bool = False) -> tuple[str, list[str]]:
    """Return the stage and the command line by which a sweep goes on.

    Args:
        name: of the sweep.
        retry: whether trials that failed are to be tried again.

    Raises:
        UserError: it runs.
    """
    folder = find_idle(name)
    record = folder.read()
    if retry:
        forget_failed(folder)
    return record.stage, ["-m", *record.arguments]


def forget_failed(folder: Folder) -> None:
    """Have the jobs that failed tried again."""
    outcomes = [path for path in folder.path.rglob(OUTCOME) if json.loads(path.read_text())["status"] == "failed"]
    for path in outcomes:
        path.unlink()
    print(f"{counted(len(outcomes), 'job')} to be tried again")


def extend(name: str, rungs: int, trials: int) -> None:
    """Add rungs or trials to a sweep.

    Raises:
        UserError: it runs, or there is nothing to add to.
    """
    folder = find_idle(name)
    record = extended(folder.read(), rungs, trials)
    record.write(folder.record_path)
    if rungs:
        print(
            f"the learning rate of {name} ends at its last rung: trials of the new one are trained from their beginning"
        )


def prune(name: str, everything: bool) -> None:
    """Remove the checkpoints of trials that are out, or of all.

    Raises:
        UserError: the sweep runs.
    """
    folder = find_idle(name)
    record, ranking = ranking_of(folder)
    going = {s.outcome.fingerprint for each in ranking if not is_out(each) for s in each.stops if s.outcome}
    freed = 0
    for place in places(record):
        for training in place.glob("*"):
            if everything or training.name not in going:
                freed += remove(training)
    print(f"{record.name}: {freed / 1e6:,.1f} MB freed")


def is_out(standing: Standing) -> bool:
    """Return whether a trial goes on no more, and is not the best."""
    return standing.place != 1 and standing.state not in UNFINISHED


def remove(training: Path) -> int:
    """Remove the checkpoints of a training, not what is known of it; return the bytes that they took."""
    paths = [*checkpoints(training), *training.glob(f"{ASIDE}*")]
    taken = sum(map(size, paths))
    for path in paths:
        shutil.rmtree(path)
    return taken


def places(record: SweepRecord) -> list[Path]:
    """Return the folders that have a sweep's trainings."""
    where = [override for override in record.fixed if override.lstrip("+").startswith("runtime")]
    place = root() / load(compose(CONF, where)).runtime.checkpoint_root / "sweeps" / record.name
    own = "tokens_per_second" in read_settings(record.settings).weights
    return sorted(place.glob("*")) if own else [place]
