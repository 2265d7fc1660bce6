"""What MLflow has of a sweep, as far as no kill may change it."""

from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

EXPERIMENT = "tunesmith"
PARENT = "mlflow.parentRunId"
CURVES = ("train.loss", "validation.loss")


class Recorded(NamedTuple):
    """A run: of a trial by its rate, or the sweep's."""

    who: str
    status: str
    steps: dict[str, list[int]]  # of each curve


def recorded(uri: str) -> list[Recorded]:
    """Return all runs; whose parent is not the sweep's run is called an orphan."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs: list[Run] = [] if experiment is None else list(client.search_runs([experiment.experiment_id]))
    parents = {run.info.run_id for run in runs if "train.lr" not in run.data.params}
    found = []
    for run in runs:
        rate = run.data.params.get("train.lr")
        under = run.data.tags.get(PARENT) in parents
        who = "sweep" if rate is None else f"trial {rate}" if under else f"orphan {rate}"
        histories = {key: client.get_metric_history(run.info.run_id, key) for key in CURVES}
        # The untrained model is measured by whichever trial is first.
        steps = {key: [metric.step for metric in history if metric.step] for key, history in histories.items()}
        found.append(Recorded(who, run.info.status, steps))
    return sorted(found, key=lambda each: each.who)


def faults(usual: list[Recorded], now: list[Recorded]) -> list[str]:
    """Return in what MLflow's runs differ from those of a sweep that nothing was done to."""
    if [each.who for each in usual] != [each.who for each in now]:
        return [f"the runs are of {', '.join(each.who for each in now)}"]
    return [f"{new} in place of {old}" for old, new in zip(usual, now, strict=True) if old != new]
