"""MLflow, kept at arm's length: what a stage records goes into a journal on disk, and MLflow gets it when it can."""

import getpass
import itertools
import os
import re
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import yaml

from common.errors import Hopeless, Interrupted, UserError
from pipeline.core.config import Config, TrackingSettings
from pipeline.core.mappings import flatten
from pipeline.core.paths import root
from pipeline.core.records import PrepareReport
from pipeline.tracking.delivery import (
    FAREWELL,
    IDENTITY,
    PARENT_TAG,
    Delivery,
    brief,
    tracking_uri,
    warn,
    without_login,
)
from pipeline.tracking.journal import Journal, Value
from pipeline.tracking.naming import run_name
from pipeline.tracking.system_metrics import PREFIX, sampled
from pipeline.workers.parent import IN_IMAGE
from pipeline.workers.ranks import rank

__all__ = ["PARENT", "Run", "open_run", "tracked", "tracking_uri", "training_folder"]

LOGGED_GROUPS = ("model", "data", "train", "export", "evaluate")
PARENT = "TUNESMITH_PARENT_RUN"  # a sweep's run, for its jobs: its id, or the folder of its journal
SWEEPS = (Path("sweeps"), Path("multirun"))  # as conf/config.yaml has it and had it, each with a folder a sweep
# Tags by which MLflow's search finds the runs of an experiment of DVC's, and all of those that began at one commit.
DVC = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
IMAGE = "mlflow.docker.image.uri"  # MLflow's own tag
MAX_PARAM = 6000  # characters that MLflow keeps of a setting
CUT = " … (cut; params.yaml has all of it)"
SETTINGS = "params.yaml"
INTERRUPTIONS = "interruptions"
HURRY = 3.0  # seconds that a stage waits for MLflow which was asked to stop: it may be killed soon


class Run:
    """One part of a run: what it records goes on from what the journal holds of the parts before."""

    def __init__(self, delivery: Delivery | None = None, name: str = "") -> None:
        """Record by a delivery; without one, nothing."""
        self.delivery = delivery
        self.name = name
        self.begun = False
        self.before: str | None = None  # the status in which the part of this name before ended; RUNNING: it was killed
        self.interruptions = ""
        self.steps: dict[str, int] = {}  # the highest of each metric
        for entry, _ in delivery.journal.entries() if delivery else ():
            if entry.kind == "run":
                self.begun = True
            elif entry.kind == "metrics" and entry.step is not None:
                self.steps |= {key: max(entry.step, self.steps.get(key, -1)) for key in entry.value}
            elif entry.kind == "tags":
                self.interruptions = entry.value.get(INTERRUPTIONS, self.interruptions)
            elif entry.kind == "status" and entry.value["name"] == name:
                self.before = entry.value["status"]

    @property
    def id(self) -> str | None:
        """The run's id once MLflow has given one; the first try is waited for, so that a short stage has it too."""
        if self.delivery is None:
            return None
        self.delivery.tried.wait(FAREWELL)
        return self.delivery.journal.run_id

    def begin(self, tags: dict[str, str], belonging: dict[str, str]) -> None:
        """Open the run, made with `tags`, or open it again; what it belongs to may be another since."""
        if not self.begun:
            self._record("run", {IDENTITY: uuid.uuid4().hex, **tags, **belonging})
        elif belonging:
            self.tags(belonging)
        self._record("status", {"name": self.name, "status": "RUNNING"})

    def params(self, config: Config, groups: tuple[str, ...] = LOGGED_GROUPS) -> None:
        """Record settings; a value that differs from an earlier stage's becomes a tag, since params cannot change."""
        values = flatten({group: asdict(getattr(config, group)) for group in groups})
        self._record("params", {_key(key): _cut(str(value)) for key, value in values.items()})

    def settings(self, config: Config) -> None:
        """Keep all settings beside the run, as params.yaml has them; of an address, no login."""
        if self.delivery is None:
            return
        settings = asdict(config)
        settings["tracking"]["uri"] = config.tracking.uri and without_login(config.tracking.uri)
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
        self._record("artifact", self.delivery.journal.put(SETTINGS, text))

    def metrics(self, figures: Mapping[str, object], step: int | None = None) -> None:
        """Record numbers; nested ones get dotted names, and what is no number is left out.

        Without a step they are figures of the whole run. What was recorded at `step` or later is left out: a resumed
        training repeats the steps since its last checkpoint.
        """
        numbers = {_key(key): value for key, value in flatten(figures).items() if isinstance(value, int | float)}
        if step is not None:
            numbers = {key: value for key, value in numbers.items() if step > self.steps.get(key, -1)}
            self.steps |= dict.fromkeys(numbers, step)
        if numbers:
            self._record("metrics", numbers, step)

    def system_metrics(self, settings: TrackingSettings) -> AbstractContextManager[None]:
        """Return a context that records what the machine does, at steps that go on from those before."""
        if self.delivery is None or not settings.system_metrics:
            return nullcontext()
        steps = itertools.count(
            max((step for key, step in self.steps.items() if key.startswith(PREFIX)), default=-1) + 1
        )
        return sampled(lambda figures: self._record("metrics", figures, next(steps)), settings.system_metrics_seconds)

    def tags(self, tags: Mapping[str, object]) -> None:
        """Record texts about the run."""
        self._record("tags", {_key(key): str(value) for key, value in tags.items()})

    def mark(self, text: str) -> None:
        """Add an interruption to those that the run's tag names, over all parts."""
        self.interruptions = f"{self.interruptions}; {text}" if self.interruptions else text
        self.tags({INTERRUPTIONS: self.interruptions})

    def splits(self, prepared: PrepareReport, names: Iterable[str]) -> None:
        """Record splits of the prepared data that this part has read, as MLflow's data sets."""
        for name in names:
            split = prepared.splits[name]
            files = ", ".join(file.file for file in prepared.files)
            self._record(
                "split",
                {"split": name, "data": prepared.data, "sha256": split.sha256, "rows": str(split.rows), "files": files},
            )

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file beside the run."""
        if self.delivery is None:
            return
        try:
            name = self.delivery.journal.keep(path)
        except OSError as error:
            warn(f"{path} is not kept beside MLflow's run ({brief(error)})")
        else:
            self._record("artifact", name)

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED, and give MLflow a moment to take what is left."""
        self._record("status", {"name": self.name, "status": status})
        if self.delivery is not None:
            self.delivery.close(HURRY if status == "KILLED" else FAREWELL)

    def _record(self, kind: str, value: Value, step: int | None = None) -> None:
        if self.delivery is not None:
            self.delivery.journal.append(kind, value, step)
            self.delivery.news.set()


@contextmanager
def tracked(
    config: Config, folder: Path, stage: str, run_id: str | None = None, name: str | None = None
) -> Iterator[Run]:
    """Yield the run whose journal is in `folder`, else `run_id`, else a new one; ended when the block ends.

    Of processes that train together, the first records. A new run's name tells its settings, if none is given.

    Raises:
        UserError: the journal cannot be written.
    """
    run = Run()
    if config.tracking.enabled and rank() == 0:
        run = open_run(config.tracking, folder, stage, run_id, name or run_name(config))
    try:
        run.settings(config)
        with run.system_metrics(config.tracking):
            yield run
    except BaseException as error:
        try:
            end_by(run, error)
        except Interrupted as asked:  # meanwhile, which is not to be lost
            end_by(run, asked)
            raise asked from error
        except UserError:  # a full disk has its line already
            pass
        raise
    run.end("FINISHED")


def end_by(run: Run, error: BaseException) -> None:
    """End a run as the error has it that ends its part."""
    if isinstance(error, Interrupted):
        run.mark(str(error).partition(";")[0])
    if isinstance(error, Hopeless):
        run.tags({"ended": error})
    was_stopped = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
    run.end("KILLED" if was_stopped else "FINISHED" if isinstance(error, Hopeless) else "FAILED")


def open_run(
    settings: TrackingSettings, folder: Path, part: str, run_id: str | None = None, name: str | None = None
) -> Run:
    """Go on with the run of a journal, or with `run_id` where it has none and MLflow knows that, or start a run.

    Args:
        settings: where runs go.
        folder: of the journal.
        part: what records, as a stage, by whose name its end is known the next time.
        run_id: of a run to go on with.
        name: of a run that is started; the part's, if not given.
    """
    delivery = Delivery(Journal(folder), settings, run_id)
    run = Run(delivery, part)
    belonging = {PARENT_TAG: PARENT, **DVC}
    run.begin(
        {"mlflow.runName": name or part, **source_tags(part)},
        {tag: os.environ[variable] for tag, variable in belonging.items() if os.environ.get(variable)},
    )
    delivery.start()
    return run


def training_folder(config: Config, fingerprint: str) -> Path:
    """Return where a training's checkpoints and its journal are: outside of any workspace that DVC may throw away."""
    return (root() / config.runtime.checkpoint_root / fingerprint).resolve()


def source_tags(part: str) -> dict[str, str]:
    """Return who has started what, of which commit: MLflow's own tags, which it has columns for, and ours."""
    tags = {"mlflow.source.name": f"tunesmith {part}", "mlflow.source.type": "LOCAL", **commit_tags()}
    if "git_commit" in tags:
        tags["mlflow.source.git.commit"] = tags["git_commit"]
    if image := os.environ.get(IN_IMAGE):
        tags[IMAGE] = image
    with suppress(KeyError, OSError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags


def commit_tags() -> dict[str, str]:
    """Return the git commit that runs, and whether files differ from it."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": str(bool(_git("status", "--porcelain", "-uno"))).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_PARAM else text[: MAX_PARAM - len(CUT)] + CUT


def _key(name: str) -> str:
    """Return a name as MLflow allows it; groups of questions have any."""
    return re.sub(r"[^\w.\- :]", "_", name)[:200]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
