"""MLflow: what is kept beside runs whose training learnt the records, and the versions in its registry."""

from typing import TYPE_CHECKING

from pipeline.core.config import TrackingSettings
from pipeline.erasure.outcome import Outcome
from pipeline.erasure.workspace import TEXTS
from pipeline.learning.forgotten import Traces
from pipeline.tracking.registry import ADAPTER_DIGEST, ANCESTORS, champion, mlflow_client

if TYPE_CHECKING:  # two seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

NAMES = frozenset(path.name for path in TEXTS)


def forget_in_runs(settings: TrackingSettings, traces: Traces, outcome: Outcome) -> None:
    """Delete texts that are kept beside runs, and name the versions that learnt the records.

    Raises:
        UserError: MLflow is out of reach, or refuses it.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with mlflow_client(settings) as client:
        for run in _runs(client, traces):
            names = [file.path for file in client.list_artifacts(run.info.run_id) if file.path in NAMES]
            store = get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)
            for name in names:
                store.delete_artifacts(name)
            if names:
                outcome.deleted.append(f"MLflow's run {run.info.run_id}: {', '.join(sorted(names))}")
        outcome.models += _versions(client, settings.experiment, traces)


def _runs(client: "MlflowClient", traces: Traces) -> list["Run"]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = [("data_digest", digest) for digest in traces.prepared]
    wanted += [("fingerprint", name) for name in traces.fingerprints]
    found: dict[str, Run] = {}
    for tag, value in wanted:
        token = None
        while True:
            page = client.search_runs(experiments, f"tags.{tag} = '{value}'", page_token=token)
            found |= {run.info.run_id: run for run in page}
            if not (token := page.token):
                break
    return [found[name] for name in sorted(found)]


def _versions(client: "MlflowClient", name: str, traces: Traces) -> list[str]:
    """Return the registry's versions that learnt the records, the champion named so."""
    now = champion(client, name)
    lines = []
    for version in client.search_model_versions(f"name = '{name}'"):
        tags = version.tags
        trainings = {tags.get("fingerprint"), *tags.get(ANCESTORS, "").split()}
        if tags.get("data_digest") in traces.prepared or trainings & {*traces.fingerprints}:
            role = ", the champion" if now is not None and now.version == version.version else ""
            digest = tags.get("sha256", "unknown")
            adapter = f"; its adapter, SHA-256 {tags[ADAPTER_DIGEST]}" if ADAPTER_DIGEST in tags else ""
            lines.append(f"version {version.version} of {name}{role}: {tags.get('file')}, SHA-256 {digest}{adapter}")
    return sorted(lines)
