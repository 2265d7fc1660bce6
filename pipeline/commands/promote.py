"""The evaluated model becomes the champion in MLflow's registry: if it passed, and is better than the present one.

    tunesmith promote                          # the GGUF that conf/compare's rule takes
    tunesmith promote --quantization Q4_K_M    # that one
    tunesmith promote --force                  # all the same; a tag says what spoke against it
    tunesmith promote --rollback               # back to the champion before; once more, and forth again

Better is what is better beyond doubt on the same test rows and questions (pipeline/comparison/pairs.py). A smaller,
faster or lighter file that was asked for, by --quantization or by conf/compare's budgets, has to be no worse.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common.errors import UserError
from common.files import sha256, write_json, write_text
from pipeline.comparison.champion import Contender, held_against, saves
from pipeline.comparison.rule import Candidate, recommend
from pipeline.comparison.runs import WORKSPACE, EvaluatedRun, require_rows
from pipeline.core.composition import CONF, compose
from pipeline.core.config import CompareSettings, Config, TrackingSettings, load
from pipeline.core.paths import ADAPTER, CARD, EVALUATION, GGUF, LINEAGE, MANIFEST, QUESTIONS, README, ROWS
from pipeline.core.records import Lineage, Manifest
from pipeline.provenance.bundles import sign
from pipeline.provenance.signing import own_signer
from pipeline.report.markdown import cell
from pipeline.report.record import Evaluation
from pipeline.report.rows import RowResults
from pipeline.report.verdict import failed, untold
from pipeline.statistics.paired import Finding
from pipeline.tracking.delivery import find_run
from pipeline.tracking.registry import (
    ADAPTER_DIGEST,
    ANCESTORS,
    CHAMPION,
    PREVIOUS,
    champion,
    mlflow_client,
    previous,
    register,
    require_champion,
    require_file,
    set_champion,
)
from pipeline.tracking.run import commit_tags, training_folder

if TYPE_CHECKING:  # seconds to import
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.evaluation.inputs import Material
    from pipeline.evaluation.measurement_cache import MeasurementCache

# What the chat and a reader know the model by, and what a later one is held against.
BESIDE = (CARD, README, ROWS)
AGAINST, SIGNED_BY = "against_champion", "signed_by"
LOCK = Path("dvc.lock")
WORTH = ("loss", "perplexity", "accuracy", "preference_accuracy", "answer_seconds", "tokens_per_second", "memory_bytes")


class NotPromoted(UserError):
    """Something speaks against a file; the champion is who it was."""


def run(
    overrides: Sequence[str] = (), quantization: str | None = None, force: bool = False, back: bool = False
) -> None:
    """Promote what the last evaluation measured, or roll back.

    Args:
        overrides: settings, as in conf/.
        quantization: the type of the GGUF to promote; else conf/compare's rule decides.
        force: promote even if it did not pass, or the champion is better.
        back: go back to the champion before.

    Raises:
        UserError: as for `promote` and `rollback`.
    """
    config = load(compose(CONF, list(overrides)))
    if back:
        rollback(config.tracking)
    else:
        promote(config, quantization, force)


@dataclass(frozen=True)
class Evaluated:
    """A file of the last evaluation, and what is known of it."""

    run: EvaluatedRun
    new: Contender
    adapter: list[Path]  # that it was made of; none where all was trained
    tags: dict[str, str]


def promote(config: Config, quantization: str | None, force: bool) -> str | None:
    """Register a GGUF file of the last evaluation and move the alias to it; return what was found against the champion.

    Raises:
        UserError: it did not pass, or is not better than the champion (neither with `force`); evaluation and files do
            not belong together; MLflow fails. The champion is then who it was.
    """
    name = config.tracking.experiment
    made = evaluated(config, quantization)
    new, path = made.new, made.new.path
    with mlflow_client(config.tracking) as client:
        before = champion(client, name)
        if before is not None and before.tags.get("sha256") == new.sha256:
            print(f"{path.name} is the champion already: version {before.version} of {before.name}")
            return None
        against, found = objections(client, made.run, new, before, config)
        more = {AGAINST: found} if found else {}
        if against and not force:
            raise NotPromoted(f"{path.name} is not promoted: {'; '.join(against)} (--force promotes it all the same)")
        more |= {"forced": "; ".join(against)} if against else {}
        more |= {PREVIOUS: str(before.version)} if before is not None else {}
        require_champion(client, name, before)
        version = enter(client, config.tracking, made, more)
        set_champion(client, version)
    print(f"{path.name} is the champion: version {version.version} of {version.name}")
    if against:
        print(f"forced, although {more['forced']}")
    served = f"SERVE_MODELS=models:/{version.name}@{CHAMPION} tunesmith serve"
    print(f"serve it: {served}    back: tunesmith promote --rollback")
    return found


def evaluated(config: Config, quantization: str | None) -> Evaluated:
    """Return the file that is asked for, else the one that the rule takes, with its lineage.

    Raises:
        UserError: there is none, or evaluation and files do not belong together.
    """
    evaluation, manifest, rows = Evaluation.read(EVALUATION), Manifest.read(GGUF / MANIFEST), RowResults.read(ROWS)
    require_rows(rows, evaluation, str(ROWS))
    run = EvaluatedRun(evaluation.model, WORKSPACE, evaluation, rows)
    file = chosen(run.files, config.compare, quantization)
    path, digest = verified(file, evaluation, manifest)
    adapter = trained(manifest)
    tags = lineage(run, file, path, digest) | (of_adapter(manifest) if adapter else {})
    return Evaluated(run, Contender(file, path, digest, named=quantization is not None), adapter, tags)


def enter(client: "MlflowClient", tracking: TrackingSettings, made: Evaluated, more: dict[str, str]) -> "ModelVersion":
    """Return the new version of a file, with its tags and `more`, and with what belongs beside it."""
    path, mlflow_run = made.new.path, made.run.evaluation.mlflow_run
    bundles, signed_by = signatures([path, *made.adapter])
    made_by = find_run(client, mlflow_run) if mlflow_run else None
    with TemporaryDirectory() as folder:
        files = [path, *made.adapter, *bundles, *beside(more.get(AGAINST), Path(folder))]
        tags = made.tags | signed_by | more
        return register(client, tracking, path.stem, files, tags, made_by.info.run_id if made_by else None)


def signatures(artifacts: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Sign a file and an adapter where there is a key; return the bundles, and a tag that says by which.

    Raises:
        UserError: the key cannot be used, or one of them does not say where it comes from.
    """
    signer = own_signer()
    if signer is None:
        return [], {}
    return [sign(path, signer) for path in artifacts], {SIGNED_BY: signer.public_key.keyid}


def rollback(tracking: TrackingSettings) -> None:
    """Move the alias to the champion before the present one, which a second rollback returns to.

    Raises:
        UserError: there is none, its file is gone, or MLflow fails.
    """
    with mlflow_client(tracking) as client:
        now = champion(client, tracking.experiment)
        if now is None:
            raise UserError(
                f"{tracking.experiment} has no champion in MLflow's registry; `tunesmith promote` makes one"
            )
        then = previous(client, now)
        if then is None:
            gone = f"version {now.tags[PREVIOUS]} is gone" if PREVIOUS in now.tags else "it is the first"
            raise UserError(f"the champion, version {now.version} of {now.name}, has none before it: {gone}")
        if "file" in then.tags:  # a version that somebody else registered has none of our tags
            require_file(then, then.tags["file"], size_of(then))
        set_champion(client, then, now)
    file = f", {then.tags['file']}" if "file" in then.tags else ""
    print(f"the champion of {then.name} is version {then.version} again{file}")


def size_of(version: "ModelVersion") -> int:
    """Return how large the file of a version is, as its tags say.

    Raises:
        UserError: they do not.
    """
    size = str(version.tags.get("bytes"))
    if not size.isdecimal():
        raise UserError(
            f"version {version.version} of {version.name} has no number in its tag `bytes`; set it in MLflow"
        )
    return int(size)


def objections(
    client: "MlflowClient", run: EvaluatedRun, new: Contender, before: "ModelVersion | None", config: Config
) -> tuple[list[str], str | None]:
    """Return what speaks against a file in place of the champion `before`, and what was found against that one."""
    against = own_objections(run.evaluation)
    if before is None:
        return against, None
    earlier = previous(client, before)
    if earlier is not None and earlier.tags.get("sha256") == new.sha256:
        return [*against, f"it is version {earlier.version}, which was rolled back (--rollback returns to it)"], None
    enough: tuple[Finding, ...] = ("better", "no worse") if saves(new, before, config.compare) else ("better",)
    try:
        found = held_against(
            new, before, config.compare, enough, partial(measuring, config, run.evaluation.fingerprint)
        )
    except UserError as error:
        return [*against, f"it cannot be compared with the champion, version {before.version}: {error}"], None
    said = f"against the champion, version {before.version}: {found}"
    return against if found.finding in enough else [*against, said], str(found)


def own_objections(evaluation: Evaluation) -> list[str]:
    """Return what speaks against a file by itself: what did not pass, or was too little to tell."""
    against = [f"the check {check.name} failed: {check.what}" for check in failed(evaluation.verdict)]
    if few := [check.what for check in untold(evaluation.verdict)]:
        against.append(f"too little was measured to tell: {'; '.join(few)}")
    return against


def measuring(config: Config, fingerprint: str) -> "tuple[Material, MeasurementCache]":
    """Return what the evaluation has measured on, and the cache of its measurements.

    Raises:
        UserError: adapter or prepared data are missing.
    """
    if not ADAPTER.is_dir():
        raise UserError(
            f"{ADAPTER} is missing, without which nothing can be measured; `dvc checkout`, or run `dvc repro`"
        )
    from pipeline.evaluation.general import with_general  # seconds to import
    from pipeline.evaluation.inputs import read_material
    from pipeline.evaluation.measurement_cache import MeasurementCache
    from pipeline.evaluation.preferences import with_pairs
    from pipeline.stages.evaluate import answer_ends, dependencies

    ends = answer_ends(Manifest.read(GGUF / MANIFEST).models)
    material = read_material(ADAPTER, config.evaluate, config.train.loss_on, ends)
    material = with_pairs(with_general(material))
    return material, MeasurementCache(training_folder(config, fingerprint), dependencies(config))


def chosen(files: list[Candidate], rule: CompareSettings, quantization: str | None) -> Candidate:
    """Return the tuned file of a type, else the one that the rule takes.

    Raises:
        UserError: there is no such file, or none within the budgets.
    """
    types = ", ".join(file.type for file in files)
    if not files:
        raise UserError(f"{EVALUATION} has no tuned GGUF file; run `dvc repro` first")
    if quantization is None:
        choice = recommend(files, rule)
        if choice.file is None:
            raise UserError(f"{choice.reason} Change conf/compare, or choose by --quantization ({types})")
        return choice.file
    for file in files:
        if file.type == quantization:
            return file
    raise UserError(f"{EVALUATION} has no tuned file of type {quantization}; it has {types}")


def verified(file: Candidate, evaluation: Evaluation, manifest: Manifest) -> tuple[Path, str]:
    """Return the file's path and SHA-256, once it is sure to be the one that was exported, checked and evaluated.

    Raises:
        UserError: it is missing or another one.
    """
    mend = "run `dvc repro`"
    if manifest.fingerprint != evaluation.fingerprint:
        raise UserError(f"{GGUF / MANIFEST} and {EVALUATION} are of different trainings; {mend}")
    entry, measured = manifest.models.get(file.type), evaluation.gguf[file.type]
    if entry is None or not measured.is_of(entry):
        raise UserError(f"{EVALUATION} is not of the {file.type} file that {GGUF / MANIFEST} lists; {mend}")
    path, digest = GGUF / entry.file, entry.sha256
    if not path.is_file():
        raise UserError(f"{path} is missing; `dvc checkout`, or {mend}")
    if sha256(path) != digest:
        raise UserError(f"{path} is not the file that was checked: its SHA-256 is not the manifest's; {mend}")
    return path, digest


def beside(found: str | None, folder: Path) -> list[Path]:
    """Return what goes with the file; its cards, copied into a folder, say what was found against the champion."""
    files = [path for path in BESIDE if path.is_file()]
    if found is None:
        return files
    if CARD in files:
        write_json(folder / CARD.name, json.loads(CARD.read_text(encoding="utf-8")) | {AGAINST: found})
    if README in files:
        text = README.read_text(encoding="utf-8")
        write_text(folder / README.name, f"{text}\n## Against the champion before\n\n{cell(found)}\n")
    return [folder / path.name if path in (CARD, README) else path for path in files]


def trained(manifest: Manifest) -> list[Path]:
    """Return the adapter that the files were made of, from which a training may go on; none where all was trained.

    Raises:
        UserError: it is missing or another one.
    """
    if manifest.method == "full":
        return []
    mend = "`dvc checkout`, or run `dvc repro`"
    if not ADAPTER.is_dir():
        raise UserError(f"{ADAPTER} is missing; {mend}")
    if sha256(ADAPTER) != manifest.adapter:
        raise UserError(f"{ADAPTER} is not what {GGUF} was made of: its SHA-256 is not the manifest's; {mend}")
    return [ADAPTER]


def of_adapter(manifest: Manifest) -> dict[str, str]:
    """Return the digest of the adapter, and the trainings that its own went on from, as tags."""
    known = (ADAPTER / LINEAGE).is_file()
    ancestors = Lineage.read(ADAPTER / LINEAGE).ancestors if known else ()
    return {ADAPTER_DIGEST: manifest.adapter} | ({ANCESTORS: " ".join(ancestors)} if ancestors else {})


def lineage(run: EvaluatedRun, file: Candidate, path: Path, digest: str) -> dict[str, str]:
    """Return where a file comes from and what it is worth, as the tags of its version.

    What is not known is left out.
    """
    evaluation = run.evaluation
    base, prepared = evaluation.base, evaluation.prepared
    tags = {
        **commit_tags(),
        "model": evaluation.model,
        "base": base.path + (f"@{base.revision}" if base.revision else ""),
        "fingerprint": evaluation.fingerprint,
        "data_digest": prepared and prepared.learnt_digest,
        "dvc_lock": sha256(LOCK) if LOCK.is_file() else None,
        "mlflow_run": evaluation.mlflow_run,
        "quantization": file.type,
        "file": path.name,
        "bytes": file.figures.bytes,
        "sha256": digest,
        "passed": str(evaluation.verdict.passed).lower(),
        "test_rows": run.test_rows,
        "test_tokens": evaluation.tokens,
        "questions": questions_asked(evaluation),
        "pairs": pairs_compared(run.rows),
        **{key: getattr(file.figures, key) for key in WORTH},
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def questions_asked(evaluation: Evaluation) -> str | None:
    """Return what tells the questions from others: the digest of all that were prepared, and how many were asked."""
    return f"{sha256(QUESTIONS)} {evaluation.questions}" if evaluation.questions and QUESTIONS.is_file() else None


def pairs_compared(rows: RowResults | None) -> str | None:
    """Return what tells the held-out pairs of answers from others: their digest and number; None of none."""
    if not rows or not rows.pairs:
        return None
    return f"{hashlib.sha256(' '.join(rows.pairs).encode()).hexdigest()} {len(rows.pairs)}"
