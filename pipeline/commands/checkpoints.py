"""What checkpoints there are, of which settings, and the command that removes some.

    tunesmith checkpoints                   lists them
    tunesmith checkpoints --prune 7d        removes those of trainings that nobody ran for seven days; also 12h, 30m
    tunesmith checkpoints --prune 3f2a…     removes those of one training, by the beginning of its name

A training that runs is left alone, and so is what MLflow has still to be told.
"""

import json
import re
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from common.errors import UserError
from pipeline.core.composition import CONF, compose
from pipeline.core.config import load
from pipeline.core.mappings import flatten
from pipeline.core.paths import root
from pipeline.training.checkpoints import ASIDE, SETTINGS, checkpoints, damage, in_use, locked, step_of

UNITS = {"d": 86400, "h": 3600, "m": 60}


def run(pruned: str | None = None) -> None:
    """List the checkpoints of this repository, once those are gone that an age or a name stands for.

    Raises:
        UserError: nothing, or more than one training, has that name.
    """
    place = root() / load(compose(CONF)).runtime.checkpoint_root
    if pruned:
        prune(place, pruned)
    show(place)


def trainings(place: Path) -> list[Path]:
    """Return the folders of all fingerprints, the one that ran last first."""
    return sorted((path.parent for path in place.glob(f"*/{SETTINGS}")), key=last_used, reverse=True)


def last_used(folder: Path) -> float:
    """Return when a training last started or saved there, in seconds since the epoch."""
    return max(path.stat().st_mtime for path in [folder / SETTINGS, *checkpoints(folder)])


def prune(place: Path, what: str) -> None:
    """Remove the checkpoints of trainings unused for an age such as `7d`, or of one whose name begins with `what`.

    Raises:
        UserError: nothing, or more than one training, has that name.
    """
    age = re.fullmatch(r"(\d+)([dhm])", what)
    if age:
        latest = time.time() - int(age[1]) * UNITS[age[2]]
        chosen = [folder for folder in trainings(place) if last_used(folder) < latest]
    else:
        chosen = [folder for folder in trainings(place) if folder.name.startswith(what)]
        if len(chosen) != 1:
            raise UserError(f"{len(chosen)} trainings in {place} have a name that begins with {what}; see the list")
    for folder in chosen:
        try:
            with locked(folder):
                before = size(folder)
                for path in (*checkpoints(folder), *folder.glob(f"{ASIDE}*")):
                    shutil.rmtree(path)
        except BlockingIOError:
            print(f"{folder.name} is being trained: left alone")
        else:
            print(f"{folder.name}: {(before - size(folder)) / 1e6:,.1f} MB freed")


def show(place: Path) -> None:
    """Print a table of all trainings that have checkpoints, and in which keys their settings differ."""
    kept = [folder for folder in trainings(place) if checkpoints(folder) or any(folder.glob(f"{ASIDE}*"))]
    if not kept:
        print(f"no checkpoints in {place}")
        return
    settings = {folder: read_settings(folder) for folder in kept}
    differing = differing_keys(list(settings.values()))
    table = Table("name", "age", "steps", "MB", "state", "settings", title=str(place))
    for folder in kept:
        own = settings[folder]
        differences = [f"{key}={own[key]}" for key in differing if key in own]
        summary = " ".join([f"model={own['model.name']}", *differences]) if own else f"{SETTINGS} is damaged"
        steps = ", ".join(str(step_of(path)) for path in checkpoints(folder))
        table.add_row(folder.name, ago(last_used(folder)), steps, f"{size(folder) / 1e6:,.1f}", state(folder), summary)
    Console().print(table)


def read_settings(folder: Path) -> dict[str, object]:
    """Return the settings of a training; none where their file is damaged, which keeps nobody from pruning it."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    flat = flatten(settings) if isinstance(settings, dict) else {}
    return flat if "model.name" in flat else {}


def differing_keys(settings: list[dict[str, object]]) -> list[str]:
    """Return the keys by which a list of settings can be told apart, without those that only follow from others."""
    keys = sorted({key for one in settings for key in one if not key.startswith("model.")})
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1]


def state(folder: Path) -> str:
    """Return whether it is being trained or can be gone on with, and how many of its checkpoints are not whole."""
    if in_use(folder):
        return "training"
    broken = [path for path in checkpoints(folder) if damage(path, by_digest=False)]
    count = len(broken) + len(list(folder.glob(f"{ASIDE}*")))
    whole = "resumable" if len(broken) < len(checkpoints(folder)) else "nothing whole"
    return f"{whole}, {count} broken" if count else whole


def size(folder: Path) -> int:
    """Return bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ago(moment: float) -> str:
    """Return a time since then, in the largest unit that fits."""
    seconds = time.time() - moment
    for unit, length in UNITS.items():
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
