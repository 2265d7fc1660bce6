"""MLflow for commands that cannot do without it: what is wrong with it ends in one line. And its registry of models.

The registered model has the experiment's name. Its versions are what was promoted, each one GGUF file with the adapter
that it was made of, and the alias `champion` is on the one that is served; `candidate` on one that is tried beside it
(pipeline/canary). A version's tag `previous` says where a rollback goes.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from common.errors import UserError
from pipeline.core.config import TrackingSettings
from pipeline.tracking.delivery import (
    artifact_store,
    brief,
    database_file,
    find_experiment,
    one_at_a_time,
    tracking_uri,
)

if TYPE_CHECKING:  # two seconds of import
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

P = ParamSpec("P")
T = TypeVar("T")
CHAMPION = "champion"  # the alias, as in SERVE_MODELS=models:/tunesmith@champion
CANDIDATE = "candidate"
PREVIOUS = "previous"  # the tag of a version: the champion before it
ANCESTORS = "ancestors"  # another: trainings that its own went on from, by fingerprint
ADAPTER_DIGEST = "adapter_digest"  # another: of its folder with an adapter, as common.files.sha256 has it
# MLflow's default of 7 would mean four minutes of silence while its server is away.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
TALKATIVE = ("urllib3.connectionpool", "mlflow.store.db.utils")  # tracebacks of what our one line says


def is_there(settings: TrackingSettings) -> bool:
    """Return whether there is a database, or a server that may have one."""
    path = database_file(tracking_uri(settings))
    return path is None or path.is_file()


@contextmanager
def mlflow_client(settings: TrackingSettings) -> Iterator["MlflowClient"]:
    """Yield MLflow's client, of the database in the repository or of the server that the settings name.

    Raises:
        UserError: there is no database yet, MLflow is out of reach, or it or its store of files refuses something.
    """
    uri = tracking_uri(settings)
    if not is_there(settings):
        raise UserError(f"MLflow has no {database_file(uri)} yet; run `tunesmith repro` first, or set tracking.uri")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import mlflow  # two seconds
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    mlflow.set_tracking_uri(uri)  # where its registry looks for a version's files, whatever its client was told
    try:
        with one_at_a_time():
            client = mlflow.MlflowClient(uri)
        yield client
    except (MlflowException, SQLAlchemyError, OSError, ModuleNotFoundError) as error:  # the last: a database's driver
        raise UserError(f"MLflow fails ({brief(error)}); see to it, then run again") from error


def champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """Return the version of the registered model `name` that has the alias; None where there is none."""
    return _with_alias(client, name, CHAMPION)


def candidate(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """Return the version that is tried beside the champion; None where there is none."""
    return _with_alias(client, name, CANDIDATE)


def _with_alias(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    model = _found(client.get_registered_model, name)
    if model is None or alias not in model.aliases:
        return None
    return client.get_model_version(name, str(model.aliases[alias]))


def numbered(client: "MlflowClient", name: str, number: str) -> "ModelVersion | None":
    """Return a version of the registered model by its number; None where there is none."""
    return _found(client.get_model_version, name, number)


def previous(client: "MlflowClient", version: "ModelVersion") -> "ModelVersion | None":
    """Return the version that a rollback from `version` goes to; None where there is none, or none any more."""
    number = version.tags.get(PREVIOUS)
    return numbered(client, version.name, number) if number else None


def set_champion(client: "MlflowClient", version: "ModelVersion", before: "ModelVersion | None" = None) -> None:
    """Move the alias to a version: the one step by which a champion becomes another.

    The way back to `before` is laid first: whatever fails, the alias is on a whole version.
    """
    if before is not None:
        client.set_model_version_tag(version.name, str(version.version), PREVIOUS, str(before.version))
    client.set_registered_model_alias(version.name, CHAMPION, str(version.version))


def set_candidate(client: "MlflowClient", version: "ModelVersion") -> None:
    """Let a version be tried beside the champion."""
    client.set_registered_model_alias(version.name, CANDIDATE, str(version.version))


def withdraw_candidate(client: "MlflowClient", version: "ModelVersion") -> None:
    """Let no version be tried any more."""
    client.delete_registered_model_alias(version.name, CANDIDATE)


def version_of_file(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    """Return the newest version of a file by its SHA-256; None where there is none."""
    if _found(client.get_registered_model, name) is None:
        return None
    versions = client.search_model_versions(f"name = '{name}' and tags.sha256 = '{digest}'")
    return max(versions, key=lambda version: int(version.version), default=None)


def require_champion(client: "MlflowClient", name: str, before: "ModelVersion | None") -> None:
    """See to it that the alias is where it was when a file was held against the champion, which may take an hour.

    Raises:
        UserError: it is on another version, or on none.
    """
    now, then = (found and int(found.version) for found in (champion(client, name), before))
    if now != then:
        gone = f"the champion of {name}, version {then}, has gone"
        what = f"version {now} has become the champion of {name}" if now else gone
        raise UserError(f"{what} while files were compared; run again")


def register(
    client: "MlflowClient",
    settings: TrackingSettings,
    title: str,
    files: list[Path],
    tags: dict[str, str],
    run_id: str | None,
) -> "ModelVersion":
    """Return a new version that has all of `files`, and no alias yet; of one that fails on its way nothing is left.

    Files are kept as a LoggedModel: the registry refuses plain artifacts of a run.

    Args:
        client: MLflow's.
        settings: its experiment names the registered model.
        title: of the LoggedModel.
        files: local paths; of a folder all files that are in it.
        tags: of the version.
        run_id: of the run that made it, if this MLflow has it.
    """
    experiment = find_experiment(client, settings.experiment, artifact_store(tracking_uri(settings)))
    title = "".join("-" if character in "/:.%\"'" else character for character in title)  # MLflow refuses these
    model = client.create_logged_model(experiment, name=title, source_run_id=run_id)
    version = None
    try:
        for file in files:
            if file.is_dir():
                client.log_model_artifacts(model.model_id, str(file), file.name)
            else:
                client.log_model_artifact(model.model_id, str(file))
        client.finalize_logged_model(model.model_id, "READY")
        if _found(client.get_registered_model, settings.experiment) is None:
            client.create_registered_model(settings.experiment)
        version = client.create_model_version(
            settings.experiment, f"models:/{model.model_id}", run_id=run_id, tags=tags, model_id=model.model_id
        )
        for file in files:
            for part in filter(Path.is_file, (file, *sorted(file.rglob("*")))):
                require_file(version, part.relative_to(file.parent).as_posix(), part.stat().st_size)
    except BaseException:
        _discard(client, model, version)
        raise
    return version


def require_file(version: "ModelVersion", name: str, size: int) -> None:
    """See to it that a version has its file of `size` bytes; one in a folder is named with that.

    Raises:
        UserError: the file is not there, or has another size.
    """
    found = _listed(version, name.rpartition("/")[0])
    if name not in found or found[name] not in (None, size):  # not every store says it
        has = "does not have it" if name not in found else f"has {found[name]:,} bytes of it"
        raise UserError(f"version {version.version} of {version.name} is to have {name}, but MLflow {has}")


def fetch(version: "ModelVersion", name: str, folder: Path) -> Path | None:
    """Return a version's file or folder `name`, downloaded into a folder; None where the version has it no more.

    Raises:
        OSError, MlflowException: it cannot be downloaded.
    """
    import mlflow.artifacts

    if name not in _listed(version):
        return None
    place = f"models:/{version.name}/{version.version}/{name}"
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=place, dst_path=str(folder)))


def _listed(version: "ModelVersion", folder: str = "") -> dict[str, int | None]:
    """Return the size of each file in a version, or in a folder of it; None where the store does not say."""
    import mlflow.artifacts

    place = f"models:/{version.name}/{version.version}/{folder}".rstrip("/")
    return {file.path: file.file_size for file in mlflow.artifacts.list_artifacts(artifact_uri=place)}


def _found(ask: Callable[P, T], *what: P.args, **how: P.kwargs) -> T | None:
    """Return what MLflow answers, or None if it has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return ask(*what, **how)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _discard(client: "MlflowClient", model: "LoggedModel", version: "ModelVersion | None") -> None:
    """Take back as much of a registration as MLflow lets us; what failed first is what is to be said."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with suppress(Exception):
        if version is not None:
            client.delete_model_version(version.name, version.version)
    with suppress(Exception):
        get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri).delete_artifacts()
    with suppress(Exception):
        client.delete_logged_model(model.model_id)
