"""A file made again from what its lineage names: prepare, train, export, each by the code that made it then."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from common.errors import UserError
from common.files import write_text
from pipeline.core.composition import compose
from pipeline.core.gguf_types import OUT_TYPES
from pipeline.core.mappings import plain
from pipeline.core.paths import ADAPTER, GGUF, MANIFEST, PREPARE_REPORT
from pipeline.core.records import FileLineage, Manifest, PrepareReport
from pipeline.verification.inputs import Checkouts, find_base, find_data, find_start

CHECKPOINTS = ".checkpoints"
NEVER = 10**9  # steps
# A training that is repeated looks at itself no more than it must.
UNSEEN = {
    "save_steps": NEVER, "eval_steps": NEVER, "logging_steps": NEVER, "check_export": False, "max_truncated": 1.0,
}  # fmt: skip
# Of a base nothing is learnt: one update makes the adapter beside which its file is exported.
NOTHING = {"max_steps": 1, "effective_batch": 1, "batch_size": 1}
# As DVC calls a stage (dvc.yaml).
HYDRA = (
    "--config-dir", ".", "--config-name", "params", "hydra.run.dir=.", "hydra.output_subdir=null",
    "hydra/job_logging=stdout",
)  # fmt: skip
# What else a stage would take for its own: DVC's, a launcher's, MLflow's.
NOT_HANDED_ON = ("DVC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MLFLOW_")
MACHINES = ("x86_64", "aarch64", "arm64", "AMD64")  # processors' kinds, where others are cards


def rebuild(lineage: FileLineage, kind: str, work: Path, workspace: Path, adapter: Path | None = None) -> Path:
    """Make a file again, and return its path.

    Args:
        lineage: of the file.
        kind: its type.
        work: an empty folder, in which all of it is done.
        workspace: where inputs are looked for that the repository does not have.
        adapter: of the same training, to export again without training.

    Raises:
        UserError: it cannot be made again here, with what it lacks; or a stage fails, with its line.
    """
    if adapter is not None and not lineage.importance_matrix:  # no data are in such a file but by its adapter
        lineage = lineage.model_copy(update={"data": None})
    checkouts = Checkouts(work / "code")
    exported = checkouts.of(lineage.exported)
    trained = checkouts.of(lineage.trained) if lineage.trained and adapter is None else exported
    place = work / "workspace"
    place.mkdir()
    roots = (trained, workspace)
    link_inputs(inputs_of(lineage, roots) | (find_start(lineage, roots) if adapter is None else {}), place)
    write_settings(lineage, kind, trained, place)
    run_stage("prepare", trained, place)
    require_same_splits(lineage, place)
    if adapter is None:
        require_machine(lineage)
        run_stage("train", trained, place)
    else:
        shutil.copytree(adapter, place / ADAPTER)
    if exported != trained:
        write_settings(lineage, kind, exported, place)
    run_stage("export", exported, place)
    manifest = Manifest.read(place / GGUF / MANIFEST)
    return next(place / GGUF / file.file for file in manifest.files if (file.of, file.type) == (lineage.of, kind))


def inputs_of(lineage: FileLineage, roots: tuple[Path, Path]) -> dict[str, Path]:
    """Return where base and data are, by their relative names in the settings.

    Raises:
        UserError: some of it is gone or has changed.
    """
    return find_base(lineage, roots) | (find_data(lineage.data, roots) if lineage.data else _starter(roots[0]))


def link_inputs(links: Mapping[str, Path], place: Path) -> None:
    """Put what the settings name by relative names where they look for it."""
    for name, target in links.items():
        link = place / name
        if not link.exists():  # a tokenizer's files may be the base's
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target.absolute())


def _starter(checkout: Path) -> dict[str, Path]:
    """Return the files of the data that a file is tried on which keeps nothing of them."""
    return {name: checkout / name for name in ("starter/chats.jsonl", "starter/questions.jsonl")}


def write_settings(lineage: FileLineage, kind: str, checkout: Path, place: Path) -> None:
    """Write params.yaml: what the file names, and conf/ of its commit for the rest."""
    composed = plain(compose(checkout / "conf", [] if lineage.data else ["data=starter"]))
    assert isinstance(composed, dict)  # noqa: S101 -- conf/ has groups
    composed["model"] = vars(lineage.base.model)
    if lineage.data:
        composed["data"] = lineage.data.settings
    composed["train"] |= {**UNSEEN, **(lineage.train or NOTHING)}
    composed["export"] = export_settings(lineage, kind)
    composed["tracking"]["enabled"] = False
    composed["runtime"] |= {
        "device": "cpu" if on_processor(lineage) else "cuda",
        "processes": lineage.trained.processes if lineage.trained else 1,
        "checkpoint_root": CHECKPOINTS,
        "time_limit": None,
    }
    link_general(composed["evaluate"].get("general") or {}, checkout, place)
    write_text(place / "params.yaml", yaml.safe_dump(composed, sort_keys=False, allow_unicode=True))


def link_general(sets: Mapping[str, Mapping[str, Sequence[str]] | None], checkout: Path, place: Path) -> None:
    """Put the general texts of a checkout where `prepare` looks for them: no row that they have is replayed."""
    for name in (name for one in sets.values() if one for name in one.get("files", ())):
        link = place / name
        if (checkout / name).is_file() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((checkout / name).absolute())


def export_settings(lineage: FileLineage, kind: str) -> dict[str, object]:
    """Return the settings that make one file, and that which it is quantized from."""
    types = [kind] if kind in OUT_TYPES else [lineage.source, kind]
    return {
        "quantizations": types if lineage.of == "tuned" else ["F16"],
        "base": types if lineage.of == "base" else [],
        "adapter": lineage.of == "adapter",
        "importance_matrix": lineage.importance_matrix,
        "verify_rows": 1,
    }


def on_processor(lineage: FileLineage) -> bool:
    """Return whether a file was trained without a card."""
    return lineage.trained is None or lineage.trained.machine in MACHINES


def require_machine(lineage: FileLineage) -> None:
    """Refuse to train on another kind of machine than a file's, where digits would be others.

    Raises:
        UserError: this is one.
    """
    if lineage.trained is None:
        return
    from pipeline.models.loading import choose_device, device_name  # torch takes seconds

    here = platform.machine() if on_processor(lineage) else device_name(choose_device("auto"))
    if here != lineage.trained.machine:
        here = platform.machine() if here == "cpu" else here
        raise UserError(
            f"machine: it was trained on {lineage.trained.machine}, and this is {here}; where the adapter is at hand,"
            " --from adapter makes the file again without training"
        )


def run_stage(name: str, checkout: Path, place: Path) -> None:
    """Run a stage of a checkout in a folder.

    Raises:
        UserError: it fails.
    """
    print(f"  {name}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(NOT_HANDED_ON)}
    command = [sys.executable, "-m", f"pipeline.stages.{name}", *HYDRA]
    ran = subprocess.run(
        command, cwd=place, env=environment | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True
    )
    if ran.returncode:
        lines = [line for line in ran.stderr.splitlines() if line.strip()] or ["it gives no reason"]
        raise UserError(f"{name} fails: {lines[-1].removeprefix(f'{name}: ')}")


def require_same_splits(lineage: FileLineage, place: Path) -> None:
    """Refuse rows that are not those that were learnt from.

    Raises:
        UserError: a split differs.
    """
    if lineage.data is None:
        return
    made = PrepareReport.read(place / PREPARE_REPORT).digests
    other = [name for name, digest in lineage.data.splits.items() if made.get(name) != digest]
    if other:
        raise UserError(f"data: prepare makes other rows here of the same settings: {', '.join(other)}")
