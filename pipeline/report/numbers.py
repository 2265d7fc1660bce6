"""The numbers of an evaluation, for DVC and MLflow: reports/metrics.json."""

from typing import Any

from pipeline.report.record import Evaluation

Numbers = dict[str, "float | Numbers"]


def numbers(evaluation: Evaluation) -> Numbers:
    """Return them nested by model and file; what is not finite, or was not measured, is left out."""
    tree = evaluation.tree()
    files = {key: {name: value for name, value in file.items() if name != "of"} for key, file in tree["gguf"].items()}
    found: Numbers = _known(
        {
            "base": tree["base_model"],
            "tuned": tree["tuned_model"],
            "gain": tree["gain"],
            "gguf": files,
            "passed": int(evaluation.verdict.passed),
        }
    )
    return found


def _known(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _known(entry) for key, entry in value.items() if entry is not None}
