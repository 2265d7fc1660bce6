"""A figure as the reports show it: its name, its value, and its value as text.

A figure of reports/metrics.json is named as there and in MLflow: tuned.loss, gguf.Q8_0.kl, gain.low. Any other is named
by its place in reports/evaluation.json: training.seconds, answers.tuned.0.tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.report.metrics import METRICS
from pipeline.report.record import Evaluation

Place = tuple[str | int, ...]

NOTHING = "-"  # for what was not measured, and for what came out as no number
UNSURE = "(interval unknown)"  # of a figure that rests on a single conversation


# How a figure is rounded, by the first part of its name that stands here; any other is shown with all its digits.
SHOWN: dict[str, Callable[[float], str]] = {
    **{metric.name: metric.text for metric in METRICS},
    **dict.fromkeys(("gain", "tasks", "train_loss", "validation_loss"), "{:.4f}".format),
    **dict.fromkeys(("accuracy_by_group", "accuracy_by_task", "arithmetic_share", "outside_share"), "{:.1%}".format),
    "task_flips": "{:.1%}".format,
    **dict.fromkeys(("won", "agreed"), "{:.1%}".format),
    "kappa": "{:.2f}".format,
    "epochs": "{:.3f}".format,
    "steady_tokens_per_second": "{:,.1f}".format,
    "trainable_share": "{:.3%}".format,
    **dict.fromkeys(("figure", "limit"), "{:.4g}".format),
}


@dataclass(frozen=True)
class Figure:
    """A figure; `interval` is its 95% confidence interval, where it has one, of nulls where that is not known."""

    name: str
    value: Any
    interval: "tuple[Figure, Figure] | None" = None

    @property
    def text(self) -> str:
        """The value, rounded as SHOWN has it."""
        if self.value is None:
            return NOTHING
        for part in self.name.split("."):
            key = part.removesuffix("_low").removesuffix("_high")
            if key in SHOWN:
                return SHOWN[key](self.value)
        return f"{self.value:,}" if type(self.value) in (int, float) else str(self.value)

    @property
    def bounds(self) -> "tuple[Figure, Figure] | None":
        """The interval, if it is known."""
        has_bounds = self.interval is not None and all(bound.value is not None for bound in self.interval)
        return self.interval if has_bounds else None

    @property
    def unsure(self) -> str:
        """What is said in the place of an interval that is not known."""
        return UNSURE if self.interval and not self.bounds and self.value is not None else ""

    def __str__(self) -> str:
        if self.bounds:
            return f"{self.text} ({self.bounds[0].text} to {self.bounds[1].text})"
        return f"{self.text} {self.unsure}".rstrip()


class Figures:
    """The figures of an evaluation."""

    def __init__(self, evaluation: Evaluation) -> None:
        tree = evaluation.tree()
        # In the evaluation itself, `base` says which model that is.
        self.tree = tree | {"base": tree["base_model"], "tuned": tree["tuned_model"]}

    def get(self, *path: str | int) -> Any:
        """Return what stands at `path`; None where there is nothing."""
        found: Any = self.tree
        for key in path:
            try:
                found = found[key]
            except (KeyError, IndexError, TypeError):
                return None
        return found

    def __call__(self, *path: str | int) -> Figure:
        """Return the figure at `path`, with its interval if NAME_low and NAME_high stand beside NAME."""
        *place, name = path
        return self._within(path, (*place, f"{name}_low"), (*place, f"{name}_high"))

    def gain(self) -> Figure:
        """Return by how many nats a token the tuned model's loss is below the base's."""
        return self._within(("gain", "loss"), ("gain", "low"), ("gain", "high"))

    def _within(self, path: Place, low: Place, high: Place) -> Figure:
        bounded = low[-1] in (self.get(*low[:-1]) or ())
        return Figure(_name(path), self.get(*path), (self._plain(low), self._plain(high)) if bounded else None)

    def _plain(self, path: Place) -> Figure:
        return Figure(_name(path), self.get(*path))


def _name(path: Place) -> str:
    return ".".join(map(str, path))
