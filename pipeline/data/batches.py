"""Rows of Arrow's batches, of which Parquet files give some, too."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.data.lines import BadLine, Row, Rows


def from_batches(batches: Callable[..., Iterator[pa.RecordBatch]], schema: pa.Schema) -> Rows:
    """Yield the rows of batches; the floats of a column that has whole numbers alone are integers."""
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    whole = whole_columns(batches(floats), floats) if floats else []
    number = 0
    for batch in batches():
        for number, row in enumerate(_from_batch(batch), start=number + 1):  # noqa: B020
            if isinstance(row, str):
                yield BadLine(number, row, "")
                continue
            for name in whole:
                row[name] = int(row[name]) if row[name] is not None and row[name] == row[name] else None
            yield Row(number, row)


def _from_batch(batch: pa.RecordBatch) -> list[Any]:
    """Return rows; the reason in the place of one that cannot be read."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            return ["not UTF-8"]
        return [row for place in range(len(batch)) for row in _from_batch(batch.slice(place, 1))]


def whole_columns(batches: Iterable[pa.RecordBatch | pa.Table], names: list[str]) -> list[str]:
    """Return the columns whose numbers are whole, as far as they can be read."""
    whole = names
    try:
        for batch in batches:
            whole = [name for name in whole if all(_is_whole(number) for number in batch[name].to_pylist())]
    except (OSError, pa.ArrowException):  # which reading the rows will say
        pass
    return whole


def _is_whole(number: float | None) -> bool:
    return number is None or number != number or float(number).is_integer()
