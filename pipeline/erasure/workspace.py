"""What stands in the workspace: rows, prepared data, reports, and what was trained with them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from common.errors import MachineError, UserError
from common.files import unwritable
from pipeline.core.paths import (
    ADAPTER,
    EXAMPLES,
    FEEDBACK,
    FEEDBACK_PAGE,
    FEEDBACK_REPORT,
    GGUF,
    LINEAGE,
    MANIFEST,
    PREPARE_REPORT,
    PREPARED,
    REJECTED,
    REPORTS,
)
from pipeline.core.records import Lineage, Manifest, PrepareReport
from pipeline.data.prepared import MADE_FROM, read_made_from
from pipeline.erasure.outcome import Outcome
from pipeline.learning.forgotten import Traces
from pipeline.learning.manifest import LearnManifest, past_manifests, present_manifest
from pipeline.training.checkpoints import SETTINGS, read_settings

# What has texts of prepared data, or of answers to them. What is measured in numbers stays.
TEXTS = (
    PREPARED, REJECTED, EXAMPLES,
    *(REPORTS / name for name in (
        "data.html", "data.json", "dataset_card.md", "evaluation.html", "evaluation.json", "evaluation.md",
        "measurements.json", "rows.json",
    )),
)  # fmt: skip
SCRATCH = Path("data/.prepare.tmp")  # of prepare, where it was interrupted
ROWS = (FEEDBACK, FEEDBACK_PAGE, FEEDBACK_REPORT)
MEASURED, KEPT = "evaluation-*", "mlflow_artifacts"  # of a training's folder: answers, and what MLflow is to be given


def traces_of_rows(root: Path, visitor: str) -> Traces:
    """Return the files of rows that had a visitor's records. Raises UserError for a damaged manifest."""
    files = [
        manifest.files[name]
        for manifest in manifests(root)
        for used in manifest.records.values()
        if used.visitor == visitor
        for name in used.files
    ]
    return Traces(files=tuple(files))


def manifests(root: Path) -> list[LearnManifest]:
    """Return the manifests of rows that there are, and that there were. Raises UserError for a damaged one."""
    present = present_manifest(root)
    return [*past_manifests(root).values(), *([present] if present else [])]


def traces_of_prepared(root: Path, traces: Traces, checkpoint_root: Path) -> Traces:
    """Return the prepared data, and the trainings, that were made of files with the records."""
    found = traces
    for workspace in _workspaces(root):
        if is_made_of(workspace, found) and (workspace / PREPARE_REPORT).is_file():
            report = PrepareReport.read(workspace / PREPARE_REPORT)
            found = found.with_more(Traces(prepared=report.data_digests))
        if (lineage := _lineage(workspace)) and found.learnt_by(lineage):
            found = found.with_more(Traces(fingerprints=(lineage.fingerprint,)))
    trained = [
        path.parent.name
        for path in checkpoint_root.glob(f"*/{SETTINGS}")
        if read_settings(path.parent).get("data") in found.prepared
    ]
    return found.with_more(Traces(fingerprints=tuple(trained)))


def forget_rows(root: Path, visitor: str, outcome: Outcome) -> None:
    """Delete the rows that have the records; `tunesmith learn` makes them again without. Manifests come last."""
    for workspace in _workspaces(root):
        remove(workspace / SCRATCH, outcome)
        for place in (*ROWS, *TEXTS):  # what killed writers left
            for left in (f".{place.name}.tmp", f".{place.name}.old.tmp"):
                remove(workspace / place.with_name(left), outcome)
    present = present_manifest(root)
    if present and any(used.visitor == visitor for used in present.records.values()):
        for place in ROWS[::-1]:  # the one that tells, last
            remove(root / place, outcome)


def forget_in_manifests(root: Path, visitor: str) -> None:
    """Take the records out of what is known of earlier rows."""
    for path, manifest in past_manifests(root).items():
        kept = {record: used for record, used in manifest.records.items() if used.visitor != visitor}
        if kept != manifest.records:
            manifest.model_copy(update={"records": kept}).write(path)


def forget_prepared(root: Path, traces: Traces, checkpoint_root: Path, outcome: Outcome) -> None:
    """Delete prepared data that was made of the records, what shows it, and what was answered to it."""
    for workspace in _workspaces(root):
        if is_made_of(workspace, traces):
            for place in TEXTS[::-1]:  # the one that tells, last
                remove(workspace / place, outcome)
    for fingerprint in traces.fingerprints:
        folder = checkpoint_root / fingerprint
        for place in [*folder.glob(MEASURED), folder / KEPT]:
            remove(place, outcome)


def models_trained(root: Path, traces: Traces, checkpoint_root: Path) -> Iterator[str]:
    """Yield the adapters, files and checkpoints of trainings that learnt the records."""
    for workspace in _workspaces(root):
        lineage = _lineage(workspace)
        if lineage and lineage.fingerprint in traces.fingerprints:
            yield f"{workspace / ADAPTER}: training {lineage.fingerprint}"
        path = workspace / GGUF / MANIFEST
        if path.is_file() and (manifest := Manifest.read(path)).fingerprint in traces.fingerprints:
            for entry in manifest.models.values():
                yield f"{workspace / GGUF / entry.file}: training {manifest.fingerprint}, SHA-256 {entry.sha256}"
    for fingerprint in traces.fingerprints:
        if (checkpoint_root / fingerprint / SETTINGS).is_file():
            yield f"{checkpoint_root / fingerprint}: checkpoints of training {fingerprint}"


def is_made_of(workspace: Path, traces: Traces) -> bool:
    """Return whether a workspace's prepared data was made of files with the records."""
    path = workspace / PREPARED / MADE_FROM
    return path.is_file() and traces.made(**read_made_from(path))


def remove(place: Path, outcome: Outcome) -> None:
    """Delete a file or a folder: out of sight at once, however long it takes. Raises MachineError."""
    aside = place.with_name(f".{place.name}.forgotten.tmp")
    try:
        if os.path.lexists(aside):
            _delete(aside)
        if os.path.lexists(place):
            place.rename(aside)
            _delete(aside)
            outcome.deleted.append(str(place))
    except OSError as error:
        raise MachineError(
            f"cannot delete {place}: {unwritable(error) or error.strerror}; grant access there"
        ) from error


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _workspaces(root: Path) -> list[Path]:
    """Return the folders that stages have written in: the workspace, and those of sweeps' jobs."""
    jobs = {path.parents[2] for path in root.glob(f"sweeps/**/{PREPARED / MADE_FROM}")}
    jobs |= {path.parents[2] for path in root.glob(f"sweeps/**/{ADAPTER / LINEAGE}")}
    return [root, *sorted(jobs)]


def _lineage(workspace: Path) -> Lineage | None:
    try:
        return Lineage.read(workspace / ADAPTER / LINEAGE) if (workspace / ADAPTER / LINEAGE).is_file() else None
    except UserError:  # of a version before
        return None
