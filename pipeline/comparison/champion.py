"""A file against the champion of MLflow's registry, on the same rows; and that one's adapter, to train on from."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common.errors import UserError
from common.files import atomic_path, sha256
from pipeline.comparison.pairs import Judgement, Measurable, Side, judge, shared
from pipeline.comparison.rule import Candidate
from pipeline.core.config import CompareSettings
from pipeline.core.paths import ADAPTER, ROWS
from pipeline.core.records import UnreadableError
from pipeline.report.rows import RowResults
from pipeline.statistics.paired import Finding
from pipeline.tracking.registry import ADAPTER_DIGEST, fetch

if TYPE_CHECKING:  # seconds to import
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.evaluation.inputs import Material
    from pipeline.evaluation.measurement_cache import MeasurementCache


@dataclass(frozen=True)
class Contender:
    """The file that may become the champion."""

    file: Candidate
    path: Path
    sha256: str
    named: bool  # by --quantization


def saves(new: Contender, before: "ModelVersion", rule: CompareSettings) -> bool:
    """Return whether a file is smaller, faster or lighter than the champion, and was asked for as such.

    By its type, which makes it smaller, or by a budget of conf/compare.
    """
    figures = new.file.figures
    smaller = figures.bytes < number(before.tags.get("bytes"))
    faster = figures.answer_seconds is not None and figures.answer_seconds < number(before.tags.get("answer_seconds"))
    lighter = figures.memory_bytes is not None and figures.memory_bytes < number(before.tags.get("memory_bytes"))
    return (
        (smaller and (new.named or rule.max_gguf_mb is not None))
        or (faster and rule.max_answer_seconds is not None)
        or (lighter and rule.max_memory_mb is not None)
    )


def number(tag: str | None) -> float:
    """Return the number in a tag, which anybody can change in MLflow; 0 where there is none."""
    try:
        return float(tag or 0)
    except ValueError:
        return 0.0


def held_against(
    new: Contender,
    before: "ModelVersion",
    settings: CompareSettings,
    enough: Sequence[Finding],
    measuring: "Callable[[], tuple[Material, MeasurementCache]]",
) -> Judgement:
    """Return what is said of a file against the champion, by what was kept of both, else by measuring more of both.

    Args:
        new: the file.
        before: the champion's version.
        settings: conf/compare's.
        enough: findings that promote.
        measuring: gives what the file was evaluated on, and the cache of its measurements.

    Raises:
        UserError: the champion's file is gone or another one, or the data that both are measured on is.
    """
    ends = (*enough, "worse")
    with TemporaryDirectory() as folder:
        old = kept_of(before, Path(folder))
        kept = None
        if new.file.side and old:
            kept = judge(new.file.side, old, settings)
            told = kept.finding == "worse" or (kept.finding in enough and not kept.blind)
            if told or is_all(new.file.side, old, settings):
                return kept
        print(f"what is kept of each row cannot tell {new.path.name} from the champion: measuring both", flush=True)
        try:
            return measured_on(new, before, old, settings, ends, measuring, Path(folder))
        except UserError as error:
            if kept is None or not kept.figures:
                raise
            return replace(kept, apart=(*kept.apart, f"no more can be measured: {error}"))


def measured_on(
    new: Contender,
    before: "ModelVersion",
    old: Side | None,
    settings: CompareSettings,
    ends: Collection[Finding],
    measuring: "Callable[[], tuple[Material, MeasurementCache]]",
    folder: Path,
) -> Judgement:
    """Return what is said of both once they are measured further; arguments and errors as of `held_against`."""
    theirs = Measurable("champion", champions_file(before, folder), before.tags["sha256"], old)
    from pipeline.comparison.settle import settle  # seconds to import

    return settle(Measurable(new.file.type, new.path, new.sha256, new.file.side), theirs, settings, ends, *measuring())


def is_all(new: Side, old: Side, settings: CompareSettings) -> bool:
    """Return whether both were measured on all of the new file's rows and pairs, and on what else of it counts."""
    rows = shared(new.rows.rows[: len(new.found.nats)], old.rows.rows[: len(old.found.nats)])
    questions = shared(new.rows.questions[: len(new.found.right)], old.rows.questions[: len(old.found.right)])
    asked = len(questions) == len(new.rows.questions) or settings.quality == "loss"
    compared = set(new.rows.pairs) <= set(old.rows.pairs)
    read = settings.quality != "preference" or new.rows.general == old.rows.general
    return len(rows) == len(new.rows.rows) and asked and compared and read


def kept_of(version: "ModelVersion", folder: Path) -> Side | None:
    """Return what was found of a version's file row by row; None where the version does not have it."""
    path = fetch(version, ROWS.name, folder)
    if path is None:
        return None
    try:
        rows = RowResults.read(path)
    except UnreadableError:  # another version's
        return None
    key = version.tags.get("quantization", "")
    return Side(rows, key) if key in rows.models else None


def champions_file(version: "ModelVersion", folder: Path) -> Path:
    """Return a version's GGUF, downloaded.

    Raises:
        UserError: the version does not have it, or it is not the one that was promoted.
    """
    name = version.tags.get("file", "its file")
    path = fetch(version, name, folder)
    if path is None:
        raise UserError(f"{name} is gone from MLflow")
    if sha256(path) != version.tags.get("sha256"):
        raise UserError(f"{name} in MLflow is not the file that was promoted: its SHA-256 is another")
    return path


def champions_adapter(version: "ModelVersion", folder: Path) -> Path:
    """Return a version's adapter: `folder`, which it replaces, whole; where it is that already, nothing is downloaded.

    Within `pipeline.tracking.registry.mlflow_client`.

    Raises:
        UserError: the version has none, it is gone, or not what was promoted; the disk is full.
    """
    title, digest = f"version {version.version} of {version.name}", version.tags.get(ADAPTER_DIGEST)
    if digest is None:
        raise UserError(
            f"{title} has no adapter in MLflow: all its weights were trained, or it was promoted before adapters were "
            "kept; promote one that has"
        )
    if folder.is_dir() and sha256(folder) == digest:
        return folder
    with atomic_path(folder) as temporary:
        fetched = fetch(version, ADAPTER.name, temporary)
        if fetched is None:
            raise UserError(f"the adapter of {title} is gone from MLflow")
        if sha256(fetched) != digest:
            raise UserError(f"the adapter of {title} in MLflow is not what was promoted: its SHA-256 is another")
        for part in fetched.iterdir():
            part.rename(temporary / part.name)
        fetched.rmdir()
    return folder
