"""Trees of the samples as the records that our own code reads."""

from typing import Any

from pipeline.report.record import Evaluation


def record(tree: dict[str, Any]) -> Evaluation:
    """Return what reports/evaluation.json holds, read as a stage reads it."""
    return Evaluation.parse(tree, "the sample")
