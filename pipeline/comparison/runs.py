"""The evaluated runs that are compared, each as what its evaluation wrote: out of MLflow, a git revision, or here."""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.words import counted
from pipeline.comparison.rule import Candidate
from pipeline.core.config import TrackingSettings
from pipeline.core.paths import EVALUATION
from pipeline.core.records import UnreadableError
from pipeline.report.record import Evaluation
from pipeline.tracking.delivery import find_run
from pipeline.tracking.registry import mlflow_client

WORKSPACE = "workspace"  # DVC's word for the files as they are here
EVALUATED = "passed"  # the metric that every evaluated run has
NEWEST = "attributes.start_time DESC"


@dataclass(frozen=True)
class EvaluatedRun:
    """One of the runs that are compared."""

    name: str  # in tables: the model's, with the reference where several have it
    reference: str  # MLflow's id, or the name that it was asked for by
    evaluation: Evaluation

    @property
    def files(self) -> list[Candidate]:
        """Its tuned GGUF files."""
        return [Candidate(self.name, kind, figures) for kind, figures in self.evaluation.tuned_files.items()]

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
    models = Counter(evaluation.model for _, evaluation in found)
    return [
        EvaluatedRun(_name(reference, evaluation, models), reference, evaluation) for reference, evaluation in found
    ]


def _readable(readers: Iterable[Callable[[], tuple[str, Evaluation]]]) -> list[tuple[str, Evaluation]]:
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


def _named(tracking: TrackingSettings, name: str) -> tuple[str, Evaluation]:
    """Return a run's reference and evaluation: from here, else from MLflow, else from DVC."""
    if name == WORKSPACE:
        return name, Evaluation.read(EVALUATION)
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
    return name, _of_revision(name, trouble)


def _known(client: Any, tracking: TrackingSettings, name: str) -> Any:
    """Return the run of an id, else the newest evaluated one of a name; None where MLflow has neither."""
    if run := find_run(client, name):
        return run
    quote = '"' if "'" in name else "'"
    return next(_evaluated(client, tracking, f"attributes.run_name = {quote}{name}{quote}"), None)


def _newest(tracking: TrackingSettings) -> list[tuple[str, Evaluation]]:
    """Return the newest evaluated run of each fingerprint, oldest first."""
    with mlflow_client(tracking) as client:
        runs: dict[str, Any] = {}
        for run in _evaluated(client, tracking):
            runs.setdefault(run.data.tags.get("fingerprint", run.info.run_id), run)
        found = _readable(partial(_of_run, client, run) for run in reversed(runs.values()))
    if not found:
        raise UserError(f"MLflow has no evaluated run in {tracking.experiment}; run `make repro` first")
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


def _of_run(client: Any, run: Any) -> tuple[str, Evaluation]:
    """Return an MLflow run's id, and what is kept of its evaluation."""
    from mlflow.exceptions import MlflowException

    title = f"run {run.info.run_id} ({run.info.run_name})"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(client.download_artifacts(run.info.run_id, EVALUATION.name, folder))
        except (MlflowException, OSError) as error:
            client.get_run(run.info.run_id)  # raises where MLflow is away
            raise UnreadableError(f"{title} has no {EVALUATION.name}; make it again: `dvc repro -sf report`") from error
        text = path.read_text(encoding="utf-8", errors="replace")
        return run.info.run_id, Evaluation.parse_text(text, f"{EVALUATION.name} of {title}")


def _of_revision(name: str, trouble: str) -> Evaluation:
    """Return the evaluation of a DVC experiment or git revision; `trouble` is why MLflow did not have it."""
    import dvc.api  # seconds, and only needed here
    from dvc.exceptions import DvcException

    try:
        text = dvc.api.read(EVALUATION.as_posix(), rev=name, encoding="utf-8")
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no run {name}: {trouble}; no DVC experiment or git revision either ({reason})") from error
    return Evaluation.parse_text(text, f"{EVALUATION} of {name}")
