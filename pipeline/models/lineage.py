"""Where an adapter comes from."""

from pathlib import Path

from common.errors import UserError
from common.files import sha256
from pipeline.core.config import ModelSettings
from pipeline.core.paths import LINEAGE
from pipeline.core.records import Lineage


def read_lineage(adapter: Path, model: ModelSettings) -> Lineage:
    """Return where an adapter comes from: base, fingerprint, MLflow run.

    Raises:
        UserError: there is no adapter, or another base than `model` was tuned; PEFT would fit what happens to fit.
    """
    lineage = Lineage.read(adapter / LINEAGE)
    if lineage.base.path != model.path:
        tuned = f"{adapter} was tuned from {lineage.base.path}"
        raise UserError(f"{tuned} and model.path is {model.path}; run `dvc repro train` first")
    return lineage


def weight_digests(adapter: Path) -> dict[str, str]:
    """Return the digests of the weights that were trained, by file; what lies beside them names runs and versions."""
    return {path.name: sha256(path) for path in sorted(adapter.glob("*.safetensors"))}
