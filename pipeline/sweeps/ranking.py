"""What trials are ranked by."""

import math
from collections.abc import Mapping

from pipeline.core.trials import Outcome

VALIDATION = {"validation_loss": 1.0}  # the objective whose score is the loss itself


def score(outcome: Outcome | None, objective: Mapping[str, float]) -> float | None:
    """Return the weighted sum of a finished job's figures, less is better; None if one is missing or no number."""
    if outcome is None or outcome.status != "finished":
        return None
    figures = [getattr(outcome, name) for name in objective]
    if any(figure is None or not math.isfinite(figure) for figure in figures):
        return None
    return sum(weight * figure for weight, figure in zip(objective.values(), figures, strict=True))
