"""The evaluated model becomes the champion in MLflow's registry: if it passed, and is better than the present one.

    tunesmith promote                          # the GGUF that conf/compare's rule takes
    tunesmith promote --quantization Q4_K_M    # that one
    tunesmith promote --force                  # all the same; a tag says what spoke against it
    tunesmith promote --rollback               # back to the champion before; once more, and forth again

Better is a higher accuracy, where both were asked the same questions and compare.quality is accuracy; with equal
accuracy, or without any, a lower loss on the same tokens of the same test rows.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from common.files import sha256
from pipeline.comparison.rule import Candidate, recommend
from pipeline.comparison.runs import WORKSPACE, EvaluatedRun
from pipeline.core.composition import CONF, compose
from pipeline.core.config import CompareSettings, TrackingSettings, load
from pipeline.core.paths import CARD, EVALUATION, GGUF, MANIFEST, QUESTIONS, README
from pipeline.core.records import Manifest
from pipeline.report.record import Evaluation
from pipeline.report.verdict import failed, untold
from pipeline.tracking.delivery import find_run
from pipeline.tracking.registry import (
    CHAMPION,
    PREVIOUS,
    champion,
    mlflow_client,
    previous,
    register,
    require_file,
    set_champion,
)
from pipeline.tracking.run import commit_tags

if TYPE_CHECKING:  # seconds to import
    from mlflow.entities.model_registry import ModelVersion

BESIDE = (CARD, README)  # what the chat and a reader know the model by
LOCK = Path("dvc.lock")
WORTH = ("loss", "perplexity", "accuracy", "answer_seconds", "tokens_per_second")


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
        promote(config.tracking, config.compare, quantization, force)


def promote(tracking: TrackingSettings, rule: CompareSettings, quantization: str | None, force: bool) -> None:
    """Register a GGUF file of the last evaluation and move the alias to it.

    Raises:
        UserError: it did not pass, or the champion is as good (neither with `force`); evaluation and files do not
            belong together; MLflow fails. The champion is then who it was.
    """
    evaluation, manifest = Evaluation.read(EVALUATION), Manifest.read(GGUF / MANIFEST)
    run = EvaluatedRun(evaluation.model, WORKSPACE, evaluation)
    file = chosen(run.files, rule, quantization)
    path, digest = verified(file, evaluation, manifest)
    tags = lineage(run, file, path, digest)
    with mlflow_client(tracking) as client:
        before = champion(client, tracking.experiment)
        if before is not None and before.tags.get("sha256") == digest:
            print(f"{path.name} is the champion already: version {before.version} of {before.name}")
            return
        against = objections(client, run, tags, before, rule.quality)
        if against and not force:
            raise UserError(f"{path.name} is not promoted: {'; '.join(against)} (--force promotes it all the same)")
        tags |= {"forced": "; ".join(against)} if against else {}
        tags |= {PREVIOUS: str(before.version)} if before is not None else {}
        made_by = find_run(client, evaluation.mlflow_run) if evaluation.mlflow_run else None
        files = [path, *(beside for beside in BESIDE if beside.is_file())]
        version = register(client, tracking, path.stem, files, tags, made_by.info.run_id if made_by else None)
        set_champion(client, version)
    print(f"{path.name} is the champion: version {version.version} of {version.name}")
    if against:
        print(f"forced, although {tags['forced']}")
    served = f"SERVE_MODELS=models:/{version.name}@{CHAMPION} tunesmith serve"
    print(f"serve it: {served}    back: tunesmith promote --rollback")


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
        # The way back first: whatever fails, the alias is on a whole version, and moves in one step.
        client.set_model_version_tag(then.name, str(then.version), PREVIOUS, str(now.version))
        set_champion(client, then)
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


def objections(client: Any, run: EvaluatedRun, tags: Mapping[str, str], before: Any, quality: str) -> list[str]:
    """Return what speaks against promoting a file in place of the champion `before`, if there is one."""
    verdict = run.evaluation.verdict
    against = [f"the check {check.name} failed: {check.what}" for check in failed(verdict)]
    if few := [check.what for check in untold(verdict)]:
        against.append(f"too little was measured to tell: {'; '.join(few)}")
    if before is None:
        return against
    earlier = previous(client, before)
    if earlier is not None and earlier.tags.get("sha256") == tags["sha256"]:
        return [*against, f"it is version {earlier.version}, which was rolled back (--rollback returns to it)"]
    return against + not_better(tags, before.tags, quality, f"version {before.version}")


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
        **{key: getattr(file.figures, key) for key in WORTH},
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


def questions_asked(evaluation: Evaluation) -> str | None:
    """Return what tells the questions from others: the digest of all that were prepared, and how many were asked."""
    return f"{sha256(QUESTIONS)} {evaluation.questions}" if evaluation.questions and QUESTIONS.is_file() else None


def not_better(new: Mapping[str, str], old: Mapping[str, str], quality: str, whose: str) -> list[str]:
    """Return why a file is not better than the champion, as the tags of both say; empty if it is.

    Args:
        new: its tags, as `lineage` makes them.
        old: the champion's.
        quality: accuracy or loss.
        whose: the champion, in words.
    """
    names = (["accuracy"] if quality == "accuracy" and _shared(new, old, "questions", "accuracy") else []) + (
        ["loss"] if _shared(new, old, "test_rows", "loss") and _shared(new, old, "test_tokens", "loss") else []
    )
    if not names:
        other = "that was measured on other rows, tokens and questions"
        return [f"it cannot be compared with the champion, {whose}: {other}"]
    sign = {"accuracy": 1, "loss": -1}
    worth = [[sign[name] * float(tags[name]) for name in names] for tags in (new, old)]
    if worth[0] > worth[1]:
        return []
    figures = ", ".join(f"{name} {new[name]} against {old[name]}" for name in names)
    return [f"it is not better than the champion, {whose}: {figures}"]


def _shared(new: Mapping[str, str], old: Mapping[str, str], condition: str, figure: str) -> bool:
    """Return whether both have a figure, measured under the same condition; anybody can change a tag in MLflow."""
    alike = condition in new and new[condition] == old.get(condition)
    return alike and all(_is_number(tags.get(figure, "")) for tags in (new, old))


def _is_number(tag: str) -> bool:
    try:
        return math.isfinite(float(tag))
    except ValueError:
        return False
