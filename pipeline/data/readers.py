"""Data files as rows with their places, read as they are asked for: JSON, CSV, Parquet, Arrow, compressed or not.

What cannot be read is given back as a `BadLine` and does not end a file of lines. What cannot be gone on with, such as
a list of JSON or an archive cut short, keeps the rows before it.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.formats import UnusableRowError, convert, detect
from pipeline.core.preferences import is_comparison
from pipeline.data.batches import from_batches
from pipeline.data.json_values import read_values
from pipeline.data.lines import KEPT, BadLine, Row, Rows, is_utf8, one_line

MARKS_OF_UTF16 = (b"\xff\xfe", b"\xfe\xff")
PROBE = 2**20  # bytes of a first line
BATCH = 1024  # rows
SAMPLE = 20  # rows that a CSV file's delimiter is told from
NULLS = ("", "NaN", "nan")
# Errors that mean a file is not what its name says, or cut short; an `OSError` of the system has a number.
BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, pa.ArrowException, UnicodeDecodeError)


def suffixes(name: str) -> tuple[str, str]:
    """Return the suffixes by which a file is read: that of its kind, and that of its compression or nothing."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSIONS else ""
    return Path(path.stem if compression else path).suffix, compression


def is_readable(name: str) -> bool:
    """Return whether a file's name is one of data."""
    return suffixes(name)[0] in READERS


def read_file(path: Path) -> Rows:
    """Yield the rows of a file, and what of it cannot be read.

    Raises:
        OSError: the system does not give it.
    """
    last = 0
    try:
        for row in READERS[suffixes(path.name)[0]](path):
            yield row
            last = row.line
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        yield BadLine(last + 1, f"unreadable from here on ({one_line(error)}); the file may be cut short", "")


def _open(path: Path) -> BinaryIO:
    """Open a file for its bytes, decompressed, UTF-16 with its mark as UTF-8."""
    opened = COMPRESSIONS[suffixes(path.name)[1]](path)
    begins = opened.read(2)
    opened.close()
    opened = COMPRESSIONS[suffixes(path.name)[1]](path)
    return io.BufferedReader(_Recoded(opened)) if begins in MARKS_OF_UTF16 else opened


class _Recoded(io.RawIOBase):
    """UTF-16 as UTF-8; half a surrogate pair is left to those who look at texts."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-16", errors="surrogatepass", newline="")

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        encoded = self._text.read(max(1, len(room) // 4)).encode("utf-8", "surrogatepass")
        room[: len(encoded)] = encoded
        return len(encoded)


def _open_zst(path: Path) -> BinaryIO:
    return io.BytesIO() if path.stat().st_size == 0 else io.BufferedReader(pa.input_stream(path, compression="zstd"))


def _text(path: Path) -> TextIO:
    """Open a file for its text; bytes that are no UTF-8 stand in it as halves of surrogate pairs."""
    return io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read_jsonl(path: Path) -> Rows:
    return _read_lines(path) if _has_lines(path) else _read_values(path)


def _read_json(path: Path) -> Rows:
    """Read a list, objects one after another, or one object that holds the rows."""
    with _open(path) as file:
        filled = (line for line in iter(lambda: file.readline(PROBE), b"") if line.strip())
        first, second = next(filled, b""), next(filled, b"")
    if second and _is_object(first):
        yield from _read_lines(path)
        return
    rows = _read_values(path)
    first_rows = list(islice(rows, 2))
    if (
        len(first_rows) == 1
        and isinstance(first_rows[0], Row)
        and not first.lstrip(b"\xef\xbb\xbf \t").startswith(b"[")
    ):
        yield from _unpacked(first_rows[0])
    else:
        yield from first_rows
        yield from rows


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _unpacked(row: Row) -> Rows:
    """Yield the rows that an object is or has: itself, its only list, those of splits, or columns side by side."""
    value = row.value
    if (held := _held(value)) is not None:
        yield from _unpacked(Row(row.line, held)) if isinstance(held, dict) else (Row(row.line, item) for item in held)
        return
    parts = list(value.values()) if isinstance(value, dict) else []
    if not parts or _is_row(value) or not all(isinstance(part, list | dict) for part in parts):
        yield row
    elif all(isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in parts):
        yield from (Row(row.line, item, split) for split, part in value.items() for item in part)
    elif len({len(part) for part in parts}) == 1:  # a list each, or cells by their index
        columns = [part if isinstance(part, list) else list(part.values()) for part in parts]
        yield from (
            Row(number, dict(zip(value, cells, strict=True)))
            for number, cells in enumerate(zip(*columns, strict=True), 1)
        )
    else:
        yield row


def _held(value: object) -> list[object] | dict[str, object] | None:
    """Return the only part of an object that holds rows, or splits, beside what is said of it, such as a version."""
    if not isinstance(value, dict) or detect(value) is not None:
        return None
    held = [part for part in value.values() if isinstance(part, list | dict)]
    if len(held) != 1 or len(value) == 1:
        return None
    part = held[0]
    inner = all(isinstance(item, list | dict) for item in part.values()) if isinstance(part, dict) else False
    return part if part and (inner or all(isinstance(item, dict) for item in part)) else None


def _is_row(value: dict[str, object]) -> bool:
    if is_comparison(value):
        return True
    name = detect(value)
    try:
        return name in ("messages", "sharegpt") or (name is not None and bool(convert(value, name)))
    except UnusableRowError:
        return False


def _has_lines(path: Path) -> bool:
    """Return whether a file has a value a line, and not values that go over several."""
    with _open(path) as file:
        line = next((line for line in iter(lambda: file.readline(PROBE), b"") if line.strip()), b"")
    try:
        json.loads(line.decode("utf-8-sig", "surrogateescape"))
        return True
    except (ValueError, RecursionError):
        pass
    if not line.lstrip(b"\xef\xbb\xbf \t").startswith((b"{", b"[")) or not line.endswith(b"\n"):
        return True
    with _text(path) as text:
        return not isinstance(next(read_values(text), None), Row)


def _read_lines(path: Path) -> Rows:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _parsed(line, number)


def _parsed(line: bytes, number: int) -> Row | BadLine:
    try:
        return Row(number, json.loads(line.decode()))
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start} of the line)"
    except json.JSONDecodeError as error:
        reason = f"not valid JSON ({error.msg})"
    except (ValueError, RecursionError) as error:
        reason = f"not valid JSON ({one_line(error)})"
    return BadLine(number, reason, line[:KEPT].decode("utf-8", "backslashreplace").strip())


def _read_values(path: Path) -> Rows:
    with _text(path) as text:
        yield from read_values(text)


class _Lines:
    """The lines of a text, those of the record that is read held, so that reading may begin anew within it."""

    def __init__(self, text: TextIO) -> None:
        self._text, self._again, self.record, self.line = text, list[str](), list[str](), 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self.record.append(line)
        self.line += 1
        return line

    def begin(self) -> int:
        """Begin a record; return its line."""
        self.record = []
        return self.line + 1

    def go_back(self) -> None:
        """Go back to the second line of the record."""
        again = self.record[1:]
        self.line -= len(again)
        self._again += reversed(again)


def _read_csv(path: Path) -> Rows:
    csv.field_size_limit(sys.maxsize)  # the default ends at 128 KiB, which a long chat exceeds
    with _text(path) as text:
        delimiter, quote, begins = _dialect([*islice(text, SAMPLE)], suffixes(path.name)[0])
    with _text(path) as text:
        lines = _Lines(text)
        for _ in range(begins):
            next(lines)
        yield from _records(lines, csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=True))


def _records(lines: _Lines, reader: Iterator[list[str]]) -> Rows:
    """Yield the rows below the header, which is the first record that is not blank."""
    header: list[str] = []
    while True:
        line = lines.begin()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield BadLine(line, f"not valid CSV ({error})", "".join(lines.record)[:KEPT])
            lines.go_back()
            continue
        if cells is None:
            return
        if not all(map(is_utf8, cells)):
            yield BadLine(line, "not UTF-8", "".join(lines.record)[:KEPT])
        elif cells and not header:
            header = cells
        elif cells:
            yield Row(line, _by_column(header, cells))


def _by_column(header: list[str], cells: list[str]) -> dict[str | None, object]:
    """Return cells by their columns; those beyond the header stand under None."""
    filled = [None if cell in NULLS else cell for cell in cells]
    row: dict[str | None, object] = {**dict.fromkeys(header), **dict(zip(header, filled, strict=False))}
    if len(cells) > len(header):
        row[None] = cells[len(header) :]
    return row


def _dialect(sample: list[str], suffix: str) -> tuple[str, str, int]:
    """Return what cells are divided and quoted by, and how many lines precede the header."""
    if sample and (said := re.fullmatch(r"sep=(.)\s*", sample[0].lstrip("\ufeff"))):  # as Excel says it
        return said[1], '"', 1
    quote = "'" if sample and re.fullmatch(r"'[^']*'([,;\t|]'[^']*')*\s*", sample[0]) else '"'
    delimiters = "\t,;|" if suffix == ".tsv" else ",;\t|"

    def agreeing(delimiter: str) -> float:
        widths = [len(cells) for cells in csv.reader(sample, delimiter=delimiter, quotechar=quote) if cells]
        return widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0

    return max(delimiters, key=agreeing), quote, 0


def _read_parquet(path: Path) -> Rows:
    def batches(columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(_whole_file(path)) as file:
            yield from file.iter_batches(batch_size=BATCH, columns=columns)

    if path.stat().st_size:
        with pq.ParquetFile(_whole_file(path)) as file:
            schema = file.schema_arrow
        yield from from_batches(batches, schema)


def _read_arrow(path: Path) -> Rows:
    """Read Arrow's stream, or its file, which has an index at its end."""

    def opened() -> Any:
        try:
            return pa.ipc.open_file(_whole_file(path))
        except pa.ArrowInvalid:
            return pa.ipc.open_stream(_whole_file(path))

    def batches(columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        reader = opened()
        indexed = isinstance(reader, pa.ipc.RecordBatchFileReader)
        for batch in map(reader.get_batch, range(reader.num_record_batches)) if indexed else reader:
            yield batch.select(columns) if columns else batch

    if path.stat().st_size:
        yield from from_batches(batches, opened().schema)


def _whole_file(path: Path) -> object:
    """Return a file that may be read at any place; a compressed one is held."""
    if not suffixes(path.name)[1]:
        return pa.memory_map(str(path))
    with _open(path) as file:
        return pa.BufferReader(file.read())


COMPRESSIONS: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
