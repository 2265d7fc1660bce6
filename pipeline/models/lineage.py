"""Where an adapter comes from."""

from pathlib import Path

from common.errors import UserError
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
