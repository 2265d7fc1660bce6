"""The same figures as CSV, which `dvc plots` draws and lays over those of other revisions."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

from pipeline.report.charts import binned
from pipeline.report.metrics import of
from pipeline.report.record import LENGTHS, FileFigures


def lengths_csv(lengths: Mapping[str, Sequence[int]]) -> str:
    """Return the share of replies by their length: `tokens` is the least in a bin; a column for each of LENGTHS."""
    edges, shares = binned(lengths)
    columns = [shares.get(name, [0.0] * (len(edges) - 1)) for name in LENGTHS]
    return _csv(("tokens", *LENGTHS), zip(edges, *columns, strict=False))  # the last edge ends the last bin


def ggufs_csv(ggufs: Mapping[str, FileFigures]) -> str:
    """Return a row for each GGUF file; what was not measured is empty."""
    columns = ("of", *(metric.name for metric in of("file")))
    return _csv(("type", *columns), ([name, *(getattr(gguf, key) for key in columns)] for name, gguf in ggufs.items()))


def _csv(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
