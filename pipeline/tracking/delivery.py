"""A thread that tells MLflow what a journal holds, whenever it listens: no stage waits for a server or fails for it."""

import fcntl
import json
import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from common.files import atomic_path
from pipeline.core.config import TrackingSettings
from pipeline.core.paths import PREPARED, root
from pipeline.tracking.journal import Entry, Journal

if TYPE_CHECKING:  # two seconds of import
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")
PAUSE = 30.0  # seconds before MLflow is tried again
FAREWELL = 20.0  # seconds that the end of a stage waits for MLflow
NO_ANSWER = "no answer yet"
THREAD = "mlflow delivery"
PARENT_COMES = 10.0  # seconds that a run waits for its parent's, which is begun just before it
PARENT_TAG = "mlflow.parentRunId"
IDENTITY = "journal"  # the tag by which a run is known again whose id was never written down
MAX_METRICS, MAX_OTHERS = 1000, 100  # MLflow's limits for one batch: metrics; params and tags
MAX_DIGEST, MAX_FILES = 36, 10_000  # characters of a data set's digest, and of its source
SQLITE = "sqlite:///"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # that MLflow knows
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")  # however often it is asked
UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the latter for what is no id at all


class Delivery:
    """Delivers a journal from `start` to `close`, in the background.

    An entry may be delivered twice, after a kill: MLflow leaves out a metric of the same value, step and time.
    """

    def __init__(self, journal: Journal, settings: TrackingSettings, run_id: str | None = None) -> None:
        """Deliver a journal; `run_id` is the run to go on with where the journal has none."""
        self.journal = journal
        self.run_id = run_id
        self.experiment = settings.experiment
        self.uri = tracking_uri(settings)
        self.artifacts = artifact_store(self.uri)
        self.trouble = NO_ANSWER  # why MLflow has not taken everything
        self.away = False  # and it has been said
        self.news, self.tried, self.closing = threading.Event(), threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._work, name=THREAD, daemon=True)

    def start(self) -> None:
        """Start to deliver what earlier processes left, and then what comes."""
        with suppress(Exception):  # what is wrong with MLflow is found and said by the thread
            import mlflow  # noqa: F401 -- not in the thread, beside the imports of a stage: Python may break such a tie
        self.news.set()
        self.thread.start()

    def close(self, patience: float | None) -> None:
        """Try a last time, for `patience` seconds at most, and say so if something is left."""
        size = self.journal.size
        self.closing.set()
        self.news.set()
        self.thread.join(patience)
        if self.journal.sent < size:
            left = f"MLflow has not taken all of this stage ({self.trouble}); {self.journal.path} keeps it"
            warn(f"{left} for the next stage of these settings, or for `tunesmith deliver`")

    def _work(self) -> None:
        last = False
        while not last:
            self.news.wait()
            self.news.clear()
            last = self.closing.is_set()
            taken = self._deliver()
            self.tried.set()
            if taken or not self.closing.is_set():  # else `close` says it
                self._tell(taken)
            if not taken:
                self.closing.wait(PAUSE)
                self.news.set()

    def _deliver(self) -> bool:
        """Return whether MLflow has taken everything that was in the journal."""
        try:
            with self.journal.delivering():
                run = self._run()
                params = dict(run.data.params)
                pending = self.journal.entries(self.journal.sent)
                for kind, group in groupby(pending, key=lambda pair: pair[0].kind):
                    entries, ends = zip(*group, strict=True)
                    if kind != "run":  # that one has been made
                        self._send(run.info.run_id, kind, list(entries), params)
                    self.journal.sent = ends[-1]
        except Exception as error:
            self.trouble = brief(error)
            return False
        self.trouble = NO_ANSWER
        return True

    def _tell(self, taken: bool) -> None:
        """Say once that MLflow is away, and once that it is back."""
        if taken and self.away:
            warn(f"MLflow is back and has taken what {self.journal.path} kept for it")
        elif not taken and not self.away:
            kept = f"metrics are kept in {self.journal.path} and delivered later"
            warn(f"MLflow is out of reach ({self.trouble}); {kept}")
        self.away = not taken

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client; one that could not be made is tried again."""
        return connect(self.uri)

    def _run(self) -> "Run":
        """Return the journal's run; where this MLflow does not know it, another one, which is told everything."""
        run_id = self.journal.run_id or self.run_id
        run = run_id and find_run(self.client, run_id)
        if not run:
            run = self._new_run()
            self.journal.sent = 0
        if run.info.run_id != self.journal.run_id:
            self.journal.run_id = run.info.run_id
        return run

    def _new_run(self) -> "Run":
        """Return a run as the journal's first entry wants it, or that which an earlier attempt has made after all."""
        first = next(entry for entry, _ in self.journal.entries() if entry.kind == "run")
        experiment = find_experiment(self.client, self.experiment, self.artifacts)
        same = self.client.search_runs([experiment], f"tags.{IDENTITY} = '{first.value[IDENTITY]}'", max_results=1)
        if same:
            return same[0]
        return self.client.create_run(experiment, start_time=first.time, tags=under_parent(first.value))

    def _send(self, run_id: str, kind: str, entries: list[Entry], params: dict[str, str]) -> None:
        """Tell MLflow entries of one kind; of those that it refuses, each is said and left out."""
        from mlflow.exceptions import MlflowException

        try:
            getattr(self, f"_send_{kind}")(run_id, entries, params)
        except MlflowException as error:
            if error.error_code not in REFUSED:
                raise
            if len(entries) == 1:
                warn(f"MLflow refuses {kind} {str(entries[0].value)[:100]} ({brief(error)})")
                return
            for entry in entries:
                self._send(run_id, kind, [entry], params)

    def _send_status(self, run_id: str, entries: list[Entry], params: dict[str, str]) -> None:
        last = entries[-1]
        if last.value["status"] == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        else:
            self.client.set_terminated(run_id, last.value["status"], end_time=last.time)

    def _send_metrics(self, run_id: str, entries: list[Entry], params: dict[str, str]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(key, float(value), entry.time, entry.step or 0)
            for entry in entries
            for key, value in entry.value.items()
        ]
        for some in batches(metrics, MAX_METRICS):
            self.client.log_batch(run_id, metrics=some)

    def _send_params(self, run_id: str, entries: list[Entry], params: dict[str, str]) -> None:
        """Make a value that differs from an earlier one a tag, since params cannot change."""
        from mlflow.entities import Param

        fresh: dict[str, str] = {}
        changed: dict[str, str] = {}
        for key, value in (pair for entry in entries for pair in entry.value.items()):
            first = fresh.get(key, params.get(key))
            if first is None:
                fresh[key] = value
            elif first != value:
                changed[f"changed.{key}"] = value
        for some in batches([Param(key, value) for key, value in fresh.items()], MAX_OTHERS):
            self.client.log_batch(run_id, params=some)
        params |= fresh
        self._send_texts(run_id, changed)

    def _send_tags(self, run_id: str, entries: list[Entry], params: dict[str, str]) -> None:
        tags = {key: value for entry in entries for key, value in entry.value.items()}
        self._send_texts(run_id, under_parent(tags))

    def _send_texts(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        for some in batches([RunTag(key, value) for key, value in tags.items()], MAX_OTHERS):
            self.client.log_batch(run_id, tags=some)

    def _send_split(self, run_id: str, entries: list[Entry], params: dict[str, str]) -> None:
        """Name each split by its data and its digest, by which MLflow finds all runs that have read it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        splits = {entry.value["split"]: entry.value for entry in entries}
        inputs = [
            DatasetInput(
                Dataset(
                    name=f"{split['data']}/{name}",
                    digest=split["sha256"][:MAX_DIGEST],
                    source_type="local",
                    source=json.dumps({"uri": str(PREPARED / f"{name}.parquet"), "files": split["files"][:MAX_FILES]}),
                    profile=json.dumps({"num_rows": int(split["rows"])}),
                ),
                [InputTag("mlflow.data.context", name)],
            )
            for name, split in splits.items()
        ]
        self.client.log_inputs(run_id, inputs)

    def _send_artifact(self, run_id: str, entries: list[Entry], params: dict[str, str]) -> None:
        """Leave out a file that cannot be stored while MLflow answers: metrics do not wait for the store of files."""
        for path in dict.fromkeys(self.journal.kept(entry.value) for entry in entries):
            try:
                self.client.log_artifact(run_id, str(path))
            except Exception as error:
                self.client.get_run(run_id)  # raises where MLflow is away
                warn(f"MLflow does not keep {path} ({brief(error)})")


def tracking_uri(settings: TrackingSettings) -> str:
    """Return where runs go: the setting, the environment, or mlflow.db in the repository."""
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{root().resolve() / 'mlflow.db'}"


def is_database(uri: str) -> bool:
    """Return whether an address is a database's, which no server of MLflow's stands before."""
    return uri.partition("://")[0].partition("+")[0] in DATABASES


def database_file(uri: str) -> Path | None:
    """Return the file that a database is; None of one that a server has."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def artifact_store(uri: str) -> str | None:
    """Return where runs in a database keep their files: in the repository.

    MLflow's default is the working folder, which DVC may throw away. A server says so itself: None.
    """
    return (root().resolve() / "mlartifacts").as_uri() if is_database(uri) else None


def without_login(uri: str) -> str:
    """Return an address as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", uri)


def connect(uri: str) -> "MlflowClient":
    """Return MLflow's client, with less patience than the minutes a call that it has by itself."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("urllib3.connectionpool").addFilter(_of_no_delivery)
    # It tells of each table that it makes, and of an error by tracebacks, which is said here in a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    from mlflow import MlflowClient  # two seconds of import, so only where something is recorded

    if is_database(uri):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 -- two more, for which nobody has to wait

    with one_at_a_time():
        make_whole(uri)
        return MlflowClient(uri)


def make_whole(uri: str) -> None:
    """Make SQLite's file where there is none, all of it or nothing: MLflow cannot open one that lacks a table."""
    path = database_file(uri)
    if path is None or path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with atomic_path(path) as temporary:
        SqlAlchemyStore(f"{SQLITE}{temporary}", artifact_store(uri)).engine.dispose()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Keep other processes of this repository out: of several that make MLflow's tables at once, all but one fail."""
    with ExitStack() as stack:
        with suppress(OSError):  # a file system without locks: who fails tries again
            folder = os.open(root(), os.O_RDONLY)
            stack.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def under_parent(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with the id of the parent run in place of its journal's folder; without, where that is gone.

    MLflow may have been away when the parent began, or be another one since.

    Raises:
        TimeoutError: the parent has not been delivered.
    """
    place = tags.get(PARENT_TAG, "")
    if not place.startswith("/"):
        return dict(tags)
    parent, until = Journal(Path(place)), time.monotonic() + PARENT_COMES
    while parent.size and parent.run_id is None:
        if time.monotonic() > until:
            raise TimeoutError("it does not have the sweep's run yet")
        time.sleep(0.1)
    others = {key: value for key, value in tags.items() if key != PARENT_TAG}
    return others | ({PARENT_TAG: parent.run_id} if parent.run_id else {})


def find_run(client: "MlflowClient", run_id: str) -> "Run | None":
    """Return the run, unless this MLflow does not have it (a clone, another database) or it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in UNKNOWN:
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """Return the experiment's id; it is made if there is none of that name."""
    from mlflow.exceptions import MlflowException

    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return existing.experiment_id
    try:
        return client.create_experiment(name, artifact_location=artifacts)
    except MlflowException:
        made = client.get_experiment_by_name(name)  # by another process, since
        if made is None:
            raise
        return made.experiment_id


def batches(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield `items`, at most `size` at a time."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def brief(error: Exception) -> str:
    """Return an error in one short line."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def warn(text: str) -> None:
    """Say something about MLflow in one line, each time: Python shows a repeated warning once, and with its source."""
    warnings.warn_explicit(text, UserWarning, "mlflow", 0)


def _of_no_delivery(record: logging.LogRecord) -> bool:
    """Leave out what urllib3 says of each failed attempt."""
    return record.threadName != THREAD
