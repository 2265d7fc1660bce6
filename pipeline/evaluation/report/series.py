"""The same figures as CSV, which `dvc plots` draws and lays over those of other revisions."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from pipeline.evaluation.report.charts import binned

LENGTHS = ("reference", "base", "tuned")
GGUFS = (
    "of", "bytes", "loss", "perplexity", "kl", "top_1", "accuracy",
    "tokens_per_second", "first_token_seconds", "answer_seconds",
)  # fmt: skip


def lengths_csv(lengths: dict[str, Sequence[int]]) -> str:
    """The share of replies by their length: `tokens` is the least in a bin; a column for each of LENGTHS."""
    edges, shares = binned(lengths)
    columns = [shares.get(name, [0.0] * (len(edges) - 1)) for name in LENGTHS]
    return _csv(("tokens", *LENGTHS), zip(edges, *columns, strict=False))  # the last edge ends the last bin


def ggufs_csv(ggufs: dict[str, Any]) -> str:
    """A row for each GGUF file; what was not measured is empty."""
    return _csv(("type", *GGUFS), ([name, *(gguf.get(key) for key in GGUFS)] for name, gguf in ggufs.items()))


def _csv(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
