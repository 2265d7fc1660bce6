"""MLflow, kept at arm's length: what it cannot take is warned about once, and no stage fails for it."""

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.compose import flatten
from pipeline.config import Config, TrackingSettings
from pipeline.stage import root

LOGGED_GROUPS = ("model", "data", "train", "export", "evaluate")
PARENT = "TUNESMITH_PARENT_RUN"  # a sweep's run, for its jobs


def tracking_uri(settings: TrackingSettings) -> str:
    """Where runs go: the setting, the environment, or mlflow.db in the repository."""
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root().resolve() / 'mlflow.db'}"


class Run:
    """One run of MLflow; after the first failure it is silent."""

    def __init__(self, client: Any, run_id: str | None) -> None:
        self.client = client
        self.id = run_id

    def params(self, config: Config, groups: tuple[str, ...] = LOGGED_GROUPS) -> None:
        """Records settings; a value that differs from an earlier stage's becomes a tag, since params cannot change."""

        def send() -> None:
            known = self.client.get_run(self.id).data.params
            for key, value in flatten({group: asdict(getattr(config, group)) for group in groups}).items():
                text = str(value)[:500]
                if key not in known:
                    self.client.log_param(self.id, key, text)
                elif known[key] != text:
                    self.client.set_tag(self.id, f"changed.{key}", text)

        self._try(send)

    def metrics(self, figures: dict[str, Any], step: int = 0) -> None:
        """Records numbers; nested ones get dotted names, and what is no number is left out."""
        numbers = {key: value for key, value in flatten(figures).items() if isinstance(value, int | float)}
        self._try(lambda: [self.client.log_metric(self.id, key, value, step=step) for key, value in numbers.items()])

    def tags(self, tags: dict[str, Any]) -> None:
        """Records texts about the run."""
        self._try(lambda: [self.client.set_tag(self.id, key, str(value)) for key, value in tags.items()])

    def artifact(self, path: Path) -> None:
        """Keeps a copy of a file beside the run."""
        self._try(lambda: self.client.log_artifact(self.id, str(path)))

    def end(self, status: str) -> None:
        """Closes the run as FINISHED or FAILED."""
        self._try(lambda: self.client.set_terminated(self.id, status))

    def _try(self, send: Callable[[], Any]) -> None:
        if self.client is None or self.id is None:
            return
        try:
            send()
        except Exception as error:
            self.client = None
            warn(error)


@contextmanager
def tracked(config: Config, run_id: str | None, name: str) -> Iterator[Run]:
    """The run `run_id`, or a new one where there is none of that id; ended when the block ends."""
    run = open_run(config.tracking, run_id, name) if config.tracking.enabled else Run(None, None)
    try:
        yield run
    except BaseException:
        run.end("FAILED")
        raise
    run.end("FINISHED")


def open_run(settings: TrackingSettings, run_id: str | None, name: str) -> Run:
    """Goes on with `run_id`, or starts a run; one that records nothing where MLflow is out of reach."""
    # MLflow's own patience with a server that does not answer is minutes a call.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        client = connect(settings)
        known = _resumed(client, run_id)
        if known is None:
            tags = {"mlflow.runName": name, **commit_tags()}
            if parent := os.environ.get(PARENT):
                tags["mlflow.parentRunId"] = parent
            known = client.create_run(_experiment(client, settings), tags=tags).info.run_id
        return Run(client, known)
    except Exception as error:
        warn(error)
        return Run(None, None)


def connect(settings: TrackingSettings) -> Any:
    """MLflow's client for where runs go."""
    from mlflow import MlflowClient  # two seconds of import, so only where something is recorded

    return MlflowClient(tracking_uri(settings))


def commit_tags() -> dict[str, str]:
    """The git commit that runs, and whether files differ from it."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"git_commit": commit, "git_dirty": str(bool(_git("status", "--porcelain", "-uno"))).lower()}
    except (OSError, subprocess.CalledProcessError):
        return {}


def warn(error: Exception) -> None:
    """Says once that MLflow is out of reach; reports/ hold everything all the same."""
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    warnings.warn(f"MLflow records nothing more of this stage ({reason}); reports/ are complete", stacklevel=2)


def _resumed(client: Any, run_id: str | None) -> str | None:
    """`run_id`, running again, if this MLflow knows it: a clone has the id but not the database."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run_id


def _experiment(client: Any, settings: TrackingSettings) -> str:
    existing = client.get_experiment_by_name(settings.experiment)
    if existing is not None:
        return existing.experiment_id
    uri = tracking_uri(settings)
    # Beside the database; MLflow's default is the working folder, which DVC may throw away.
    place = (root().resolve() / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    return client.create_experiment(settings.experiment, artifact_location=place)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
