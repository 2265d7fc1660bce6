"""The evaluated runs that are compared, each as what its evaluation wrote: out of MLflow, a git revision, or here."""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.comparison.rule import File
from pipeline.config import TrackingSettings
from pipeline.delivery import find_run
from pipeline.errors import UserError
from pipeline.files import read_made
from pipeline.registry import mlflow_client

EVALUATION = Path("reports/evaluation.json")
WORKSPACE = "workspace"  # DVC's word for the files as they are here
EVALUATED = "passed"  # the metric that every evaluated run has
NEWEST = "attributes.start_time DESC"


@dataclass(frozen=True)
class EvaluatedRun:
    """One of the runs that are compared."""

    name: str  # in tables: the model's, with the reference where several have it
    reference: str  # MLflow's id, or the name that it was asked for by
    evaluation: dict[str, Any]  # reports/evaluation.json

    @property
    def files(self) -> list[File]:
        """Its tuned GGUF files."""
        tuned = {kind: gguf for kind, gguf in self.evaluation["gguf"].items() if gguf["of"] == "tuned"}
        figures = [field.name for field in fields(File) if field.name not in ("run", "type")]
        return [File(self.name, kind, **{key: gguf.get(key) for key in figures}) for kind, gguf in tuned.items()]

    @property
    def test_rows(self) -> str | None:
        """What tells the rows that it was tested on from others: digest and number; None where no report has it."""
        prepared = self.evaluation["prepared"]
        return f"{prepared['splits']['test']['sha256']} {self.evaluation['rows']}" if prepared else None


def find_runs(tracking: TrackingSettings, wanted: list[str]) -> list[EvaluatedRun]:
    """The runs of these names, or without any the newest evaluated one of each fingerprint in MLflow's experiment.

    A name is `workspace`, an MLflow run's id or name (the newest of it), a DVC experiment or a git revision.

    Raises:
        UserError: there is no such run, or none at all; it has not been evaluated; MLflow is out of reach.
    """
    found = [_named(tracking, name) for name in dict.fromkeys(wanted)] if wanted else _newest(tracking)
    models = Counter(evaluation["model"] for _, evaluation in found)
    return [
        EvaluatedRun(_name(reference, evaluation, models), reference, evaluation) for reference, evaluation in found
    ]


def _name(reference: str, evaluation: dict[str, Any], models: Counter[str]) -> str:
    model = evaluation["model"]
    return model if models[model] == 1 else f"{model} {reference[:8] if len(reference) == 32 else reference}"


def _named(tracking: TrackingSettings, name: str) -> tuple[str, dict[str, Any]]:
    """A run's reference and evaluation: from here, else from MLflow, else from DVC."""
    if name == WORKSPACE:
        return name, read_made(EVALUATION)
    trouble = "MLflow has no evaluated run of that id or name"
    try:
        with mlflow_client(tracking) as client:
            run = _known(client, tracking, name)
            if run is not None:
                return run.info.run_id, _evaluation(client, run)
    except UserError as error:
        trouble = str(error)
    return name, _of_revision(name, trouble)


def _known(client: Any, tracking: TrackingSettings, name: str) -> Any:
    """The run of an id, else the newest evaluated one of a name; None where MLflow has neither."""
    if run := find_run(client, name):
        return run
    quote = '"' if "'" in name else "'"
    return next(_evaluated(client, tracking, f"attributes.run_name = {quote}{name}{quote}"), None)


def _newest(tracking: TrackingSettings) -> list[tuple[str, dict[str, Any]]]:
    """The newest evaluated run of each fingerprint, oldest first; says which have no evaluation to read."""
    found = []
    with mlflow_client(tracking) as client:
        runs: dict[str, Any] = {}
        for run in _evaluated(client, tracking):
            runs.setdefault(run.data.tags.get("fingerprint", run.info.run_id), run)
        for run in reversed(runs.values()):
            try:
                found.append((run.info.run_id, _evaluation(client, run)))
            except UserError as error:
                print(f"left out: {error}", file=sys.stderr)
    if not found:
        raise UserError(f"MLflow has no evaluated run in {tracking.experiment}; run `make repro` first")
    return found


def _evaluated(client: Any, tracking: TrackingSettings, condition: str = "") -> Iterator[Any]:
    """The evaluated runs of the experiment, newest first."""
    experiment = client.get_experiment_by_name(tracking.experiment)
    token = None
    while experiment is not None:
        page = client.search_runs([experiment.experiment_id], condition, order_by=[NEWEST], page_token=token)
        yield from (run for run in page if EVALUATED in run.data.metrics)
        token = page.token
        if not token:
            return


def _evaluation(client: Any, run: Any) -> dict[str, Any]:
    """What MLflow keeps of a run's evaluation."""
    from mlflow.exceptions import MlflowException

    title = f"run {run.info.run_id} ({run.info.run_name})"
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(client.download_artifacts(run.info.run_id, EVALUATION.name, folder))
        except (MlflowException, OSError) as error:
            client.get_run(run.info.run_id)  # raises where MLflow is away
            raise UserError(f"{title} has no {EVALUATION.name}; evaluate it again: `dvc repro -f evaluate`") from error
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content


def _of_revision(name: str, trouble: str) -> dict[str, Any]:
    """The evaluation of a DVC experiment or git revision; `trouble` is why MLflow did not have it."""
    import dvc.api  # seconds, and only needed here
    from dvc.exceptions import DvcException

    try:
        content: dict[str, Any] = json.loads(dvc.api.read(EVALUATION.as_posix(), rev=name, encoding="utf-8"))
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"no run {name}: {trouble}; no DVC experiment or git revision either ({reason})") from error
    return content
