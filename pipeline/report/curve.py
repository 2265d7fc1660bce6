"""The loss curve of a training, as reports/loss.csv has it."""

import csv
from pathlib import Path

from common.errors import UserError
from pipeline.report.record import Point


def read_curve(path: Path) -> tuple[Point, ...]:
    """Return training and validation loss by step; none where there is no such file.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return ()
    losses: dict[int, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                losses.setdefault(int(row["step"]), {})[row["split"]] = float(row["loss"])
        return tuple(
            Point(step=step, loss=found.get("train"), validation_loss=found.get("validation"))
            for step, found in sorted(losses.items())
        )
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not as train wrote it; run `dvc checkout {path}`, or `dvc repro -sf train`"
        ) from error
