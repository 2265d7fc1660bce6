"""The evaluated runs that are compared, each as what its evaluation wrote: out of MLflow, a git revision, or here."""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.errors import UserError
from common.words import counted
from pipeline.comparison.rule import Candidate
from pipeline.core.config import TrackingSettings
from pipeline.core.paths import EVALUATION, ROWS
from pipeline.core.records import UnreadableError
from pipeline.report.record import Evaluation
from pipeline.report.rows import RowResults
from pipeline.tracking.delivery import find_run
from pipeline.tracking.registry import mlflow_client

if TYPE_CHECKING:  # seconds to import
    from mlflow import MlflowClient

WORKSPACE = "workspace"  # DVC's word for the files as they are here
EVALUATED = "passed"  # the metric that every evaluated run has
NEWEST = "attributes.start_time DESC"
ROUNDED = 2e-5  # nats by which a loss of the rows and the evaluation's may differ


class Found(NamedTuple):
    """A run as it was found: where, and what it left."""

    reference: str
    evaluation: Evaluation
    rows: str | None  # the text of rows.json


@dataclass(frozen=True)
class EvaluatedRun:
    """One of the runs that are compared."""

    name: str  # in tables: the model's, with the reference where several have it
    reference: str  # MLflow's id, or the name that it was asked for by
    evaluation: Evaluation
    rows: RowResults | None = None  # what was found of each row; None where that is not kept

    @property
    def files(self) -> list[Candidate]:
        """Its tuned GGUF files."""
        return [Candidate(self.name, kind, figures, self.rows) for kind, figures in self.evaluation.tuned_files.items()]

    @property
    def test_rows(self) -> str | None:
        """What tells the rows that it was tested on from others: digest and number; None where no report has it."""
        prepared = self.evaluation.prepared
        return f"{prepared.splits['test'].sha256} {self.evaluation.rows}" if prepared else None


def find_runs(tracking: TrackingSettings, names: list[str]) -> list[EvaluatedRun]:
    """Return the runs of these names; without any, the newest evaluated one of each fingerprint in MLflow.

    A name is `workspace`, an MLflow run's id or name (the newest of it), a DVC experiment or a git revision. A run
    whose evaluation cannot be read is left out, which stderr says.

    Raises:
        UserError: there is no such run, or none that can be read; MLflow is out of reach.
    """
    found = _readable(partial(_named, tracking, name) for name in dict.fromkeys(names)) if names else _newest(tracking)
    models = Counter(one.evaluation.model for one in found)
    return [
        EvaluatedRun(_name(one.reference, one.evaluation, models), one.reference, one.evaluation, _rows_of(one))
        for one in found
    ]


def require_rows(rows: RowResults, evaluation: Evaluation, place: str) -> None:
    """See to it that what was found of each row is what an evaluation sums up.

    Raises:
        UserError: it is another evaluation's.
    """
    for key, figures in evaluation.gguf.items():
        loss = rows.models[key].loss(rows.tokens[: evaluation.rows]) if key in rows.models else None
        if (loss is None) != (figures.loss is None) or abs((loss or 0) - (figures.loss or 0)) > ROUNDED:
            raise UserError(f"{place} and its {EVALUATION.name} are of different evaluations, by the loss of {key}")


def _rows_of(found: Found) -> RowResults | None:
    """Return what was found of each row of a run; None, which stderr says, where it cannot be read or is another's."""
    if found.rows is None:
        return None
    place = f"{ROWS.name} of {found.reference}"
    try:
        rows = RowResults.parse_text(found.rows, place)
        require_rows(rows, found.evaluation, place)
    except UserError as error:
        print(f"left aside: {error}", file=sys.stderr)
        return None
    return rows


def _readable(readers: Iterable[Callable[[], Found]]) -> list[Found]:
    """Return what each of them reads, less what cannot be read.

    Raises:
        UnreadableError: nothing is left.
    """
    found, troubles = [], []
    for read in readers:
        try:
            found.append(read())
        except UnreadableError as error:
            troubles.append(str(error))
    if troubles and not found:
        others = f"; nor can {counted(len(troubles) - 1, 'other run')} be read" if len(troubles) > 1 else ""
        raise UnreadableError(troubles[0] + others)
    for trouble in troubles:
        print(f"left out: {trouble}", file=sys.stderr)
    return found


def _name(reference: str, evaluation: Evaluation, models: Counter[str]) -> str:
    model = evaluation.model
    return model if models[model] == 1 else f"{model} {reference[:8] if len(reference) == 32 else reference}"


def _named(tracking: TrackingSettings, name: str) -> Found:
    """Return a run: from here, else from MLflow, else from DVC."""
    if name == WORKSPACE:
        rows = ROWS.read_text(encoding="utf-8", errors="replace") if ROWS.is_file() else None
        return Found(name, Evaluation.read(EVALUATION), rows)
    trouble = "MLflow has no evaluated run of that id or name"
    try:
        with mlflow_client(tracking) as client:
            run = _known(client, tracking, name)
            if run is not None:
                return _of_run(client, run)
    except UnreadableError:
        raise
    except UserError as error:
        trouble = str(error)
    return _of_revision(name, trouble)


def _known(client: Any, tracking: TrackingSettings, name: str) -> Any:
    """Return the run of an id, else the newest evaluated one of a name; None where MLflow has neither."""
    if run := find_run(client, name):
        return run
    quote = '"' if "'" in name else "'"
    return next(_evaluated(client, tracking, f"attributes.run_name = {quote}{name}{quote}"), None)


def _newest(tracking: TrackingSettings) -> list[Found]:
    """Return the newest evaluated run of each fingerprint, oldest first."""
    with mlflow_client(tracking) as client:
        runs: dict[str, Any] = {}
        for run in _evaluated(client, tracking):
            runs.setdefault(run.data.tags.get("fingerprint", run.info.run_id), run)
        found = _readable(partial(_of_run, client, run) for run in reversed(runs.values()))
    if not found:
        raise UserError(f"MLflow has no evaluated run in {tracking.experiment}; run `tunesmith repro` first")
    return found


def _evaluated(client: Any, tracking: TrackingSettings, condition: str = "") -> Iterator[Any]:
    """Yield the evaluated runs of the experiment, newest first."""
    experiment = client.get_experiment_by_name(tracking.experiment)
    token = None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], condition, order_by=[NEWEST], page_token=token)
        yield from (run for run in page if EVALUATED in run.data.metrics)
        token = page.token
        if not token:
            return


def _of_run(client: Any, run: Any) -> Found:
    """Return what an MLflow run has kept of its evaluation."""
    from mlflow.exceptions import MlflowException

    title = f"run {run.info.run_id} ({run.info.run_name})"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(client.download_artifacts(run.info.run_id, EVALUATION.name, folder))
        except (MlflowException, OSError) as error:
            client.get_run(run.info.run_id)  # raises where MLflow is away
            raise UnreadableError(f"{title} has no {EVALUATION.name}; make it again: `dvc repro -sf report`") from error
        text = path.read_text(encoding="utf-8", errors="replace")
        evaluation = Evaluation.parse_text(text, f"{EVALUATION.name} of {title}")
        return Found(run.info.run_id, evaluation, _artifact(client, run.info.run_id, ROWS.name, folder))


def _artifact(client: "MlflowClient", run_id: str, name: str, folder: str) -> str | None:
    """Return the text of a run's artifact; None where it has none of that name."""
    from mlflow.exceptions import MlflowException

    try:
        path = Path(client.download_artifacts(run_id, name, folder))
    except (MlflowException, OSError):
        return None
    return path.read_text(encoding="utf-8", errors="replace")


def _of_revision(name: str, trouble: str) -> Found:
    """Return what a DVC experiment or git revision has; `trouble` is why MLflow did not have it."""
    import dvc.api  # seconds, and only needed here
    from dvc.exceptions import DvcException

    try:
        text = dvc.api.read(EVALUATION.as_posix(), rev=name, encoding="utf-8")
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no run {name}: {trouble}; no DVC experiment or git revision either ({reason})") from error
    rows = None
    with suppress(DvcException):
        rows = dvc.api.read(ROWS.as_posix(), rev=name, encoding="utf-8")
    return Found(name, Evaluation.parse_text(text, f"{EVALUATION} of {name}"), rows)
