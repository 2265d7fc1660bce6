"""The metrics that are shown, a row each: tables, series, card, page, summary and the rule of comparison read them.

To add one: a row here, and a field of the same name in record.py or core/records.py, where what measures it puts it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Subject = Literal["model", "file", "answer", "text", "training", "general"]


def megabytes(size: float) -> str:
    """Return bytes in units of a million."""
    return f"{size / 1e6:,.1f}"


def seconds(value: float) -> str:
    """Return hundredths of a second, or tenths of a millisecond below one second, where small models answer."""
    return f"{value:,.2f}" if value >= 1 else f"{value:.4f}"


@dataclass(frozen=True)
class Metric:
    """One number, as it is called, shown and compared."""

    name: str  # of its field, and in reports/metrics.json
    label: str
    unit: str  # empty where it has none
    text: Callable[[float], str]
    of: tuple[Subject, ...]  # whose it is, and so in which tables it stands
    better: Literal["higher", "lower"] | None = None
    headline: bool = False  # stands at the top of the page, in the model's card and on the Hub

    @property
    def head(self) -> str:
        """What stands above its column: label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def goodness(self, value: float | None) -> float:
        """Return a number that is higher for what is better; unknown is worst.

        Raises:
            ValueError: neither way is better.
        """
        if self.better is None:
            raise ValueError(f"{self.name} has no better")
        if value is None:
            return float("-inf")
        return value if self.better == "higher" else -value


def _decimals(count: int) -> Callable[[float], str]:
    return f"{{:,.{count}f}}".format


def _percent(count: int) -> Callable[[float], str]:
    return f"{{:.{count}%}}".format


METRICS = (
    Metric("bytes", "MB", "", megabytes, ("file",), "lower"),
    Metric("memory_bytes", "memory", "MB", megabytes, ("file",), "lower"),
    Metric("loss", "loss", "nats a token", _decimals(4), ("model", "file", "general"), "lower", headline=True),
    Metric("forgetting", "above the base's", "nats a token", "{:+.4f}".format, ("general",), "lower"),
    Metric("perplexity", "perplexity", "", _decimals(4), ("model", "file"), "lower", headline=True),
    Metric("samples_per_second", "samples/s", "", _decimals(2), ("model",), "higher"),
    Metric("kl", "KL", "nats", "{:.2g}".format, ("file",), "lower"),
    Metric("top_1", "top-1", "", _percent(2), ("file",), "higher"),
    Metric("accuracy", "accuracy", "", _percent(1), ("model", "file"), "higher", headline=True),
    Metric("preference_accuracy", "preferences", "", _percent(1), ("model", "file"), "higher", headline=True),
    Metric("pairs", "pairs", "", "{:,}".format, ("model", "file")),
    Metric("pairs_won", "pairs won", "", "{:,}".format, ("model", "file"), "higher"),
    Metric("pairs_lost", "pairs lost", "", "{:,}".format, ("model", "file"), "lower"),
    Metric("flips", "flips", "", _percent(1), ("file",), "lower"),
    Metric("flips_lost", "lost", "", "{:,}".format, ("file",), "lower"),
    Metric("flips_won", "won", "", "{:,}".format, ("file",), "higher"),
    Metric("tokens", "tokens", "", "{:,}".format, ("answer",)),
    Metric("tokens_per_second", "tokens/s", "", _decimals(1), ("file", "answer"), "higher"),
    Metric("prompt_tokens_per_second", "prompt tokens/s", "", _decimals(1), ("file",), "higher"),
    Metric("first_token_seconds", "first token", "s", seconds, ("file", "answer"), "lower"),
    Metric("answer_seconds", "answer", "s", seconds, ("file",), "lower"),
    Metric("seconds", "seconds", "", seconds, ("answer",), "lower"),
    Metric("mean_tokens", "tokens a reply", "", _decimals(1), ("text",)),
    Metric("distinct_1", "distinct-1", "", _decimals(3), ("text",)),
    Metric("distinct_2", "distinct-2", "", _decimals(3), ("text",)),
    Metric("repetition", "repetition", "", _percent(1), ("text",)),
    Metric("refusals", "refusals", "", _percent(1), ("text",)),
    Metric("language_kept", "language kept", "", _percent(1), ("text",)),
    Metric("seconds", "training time", "s", seconds, ("training",), "lower"),
    Metric("peak_memory_gib", "peak reserved memory", "GiB", _decimals(3), ("training",), "lower"),
    Metric(
        "peak_memory_training_gib", "peak reserved memory, training only", "GiB", _decimals(3), ("training",), "lower"
    ),
    Metric("peak_memory_share", "peak reserved memory, of the card", "", _percent(3), ("training",), "lower"),
    Metric("peak_memory_training_share", "training memory, of the card", "", _percent(3), ("training",), "lower"),
)
BY_NAME = {metric.name: metric for metric in reversed(METRICS)}  # of two of one name, the first
HEADLINES = tuple(metric.name for metric in METRICS if metric.headline)


def of(subject: Subject) -> tuple[Metric, ...]:
    """Return the metrics of a subject, in the order in which they are shown."""
    return tuple(metric for metric in METRICS if subject in metric.of)


def metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        KeyError: there is none.
    """
    return BY_NAME[name]
