"""The same figures as CSV, which `dvc plots` draws and lays over those of other revisions."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

from pipeline.core.mappings import flatten
from pipeline.report.charts import binned
from pipeline.report.file_table import shown_figures
from pipeline.report.record import LENGTHS, FileFigures


def lengths_csv(lengths: Mapping[str, Sequence[int]]) -> str:
    """Return the share of replies by their length: `tokens` is the least in a bin; a column for each of LENGTHS."""
    edges, shares = binned(lengths)
    columns = [shares.get(name, [0.0] * (len(edges) - 1)) for name in LENGTHS]
    return _csv(("tokens", *LENGTHS), zip(edges, *columns, strict=False))  # the last edge ends the last bin


def ggufs_csv(ggufs: Mapping[str, FileFigures]) -> str:
    """Return a row for each GGUF file, a column for each figure of its table; what was not measured is empty."""
    rows = {name: {"of": gguf.of, **flatten(shown_figures(gguf.tree()))} for name, gguf in ggufs.items()}
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    return _csv(("type", *columns), ([name, *map(row.get, columns)] for name, row in rows.items()))


def _csv(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
