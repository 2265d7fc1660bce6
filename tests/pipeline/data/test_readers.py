import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.lines import BadLine, Row
from pipeline.data.readers import read_file

ROWS = [{"question": f"Où {n}?", "answer": 'He said "I".\nTwice.'} for n in range(50)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS)


def read(path: Path, content: str | bytes) -> tuple[list[Any], list[BadLine]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    found = list(read_file(path))
    return [row.value for row in found if isinstance(row, Row)], [row for row in found if isinstance(row, BadLine)]


def arrow(opened: Callable[..., Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with opened(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=10)
    return bytes(sink.getvalue())


def parquet(table: pa.Table = TABLE) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=10)
    return bytes(sink.getvalue())


def csv_of(delimiter: str, quote: str = '"') -> str:
    rows = [[f"Où {n}?", 'He said "I".\nTwice.'] for n in range(50)]
    cells = [[cell.replace(quote, quote * 2) for cell in row] for row in [["question", "answer"], *rows]]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in row) + "\n" for row in cells)


FILES: dict[str, str | bytes] = {
    "lines.jsonl": LINES,
    "lines.ndjson": "\n\r\n" + LINES.replace("\n", "\r\n"),
    "lines.json": LINES,
    "marked.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16be.csv": b"\xfe\xff" + csv_of(";").encode("utf-16-be"),
    "pretty.jsonl": "".join(json.dumps(row, indent=2) + "\n" for row in ROWS),
    "pretty.json": b"\xef\xbb\xbf" + "".join(json.dumps(row, indent=2) + "\n" for row in ROWS).encode(),
    "list.json": json.dumps(ROWS),
    "list.jsonl": json.dumps(ROWS, indent=1, ensure_ascii=False),
    "lines_in_list.json": "[\n" + ",\n".join(json.dumps(row) for row in ROWS) + "\n]\n",
    "splits.json": json.dumps({"train": ROWS[:40], "test": ROWS[40:]}),
    "held.json": json.dumps({"data": ROWS, "version": 1}),
    "held_pretty.json": json.dumps({"version": "1.1", "license": None, "rows": ROWS}, indent=1),
    "held_splits.json": json.dumps({"version": 1, "data": {"train": ROWS[:40], "test": ROWS[40:]}}),
    "columns.json": json.dumps({key: [row[key] for row in ROWS] for key in ("question", "answer")}, indent=1),
    "pandas.json": TABLE.to_pandas().to_json(),
    "comma.csv": csv_of(","),
    "semicolon.csv": csv_of(";"),
    "tab.csv": csv_of("\t"),
    "tab.tsv": csv_of("\t"),
    "excel.csv": "sep=;\n" + csv_of(";"),
    "single.csv": csv_of(",", "'"),
    "rows.parquet": parquet(),
    "stream.arrow": arrow(pa.ipc.new_stream),
    "file.arrow": arrow(pa.ipc.new_file),
}
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, FILES[name]) == (ROWS, [])


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize(
    "name", ["lines.jsonl", "utf16.jsonl", "list.json", "semicolon.csv", "rows.parquet", "file.arrow"]
)
def test_a_compressed_file_gives_the_same_rows(tmp_path: Path, name: str, compression: str) -> None:
    content = FILES[name]
    compressed = COMPRESSED[compression](content.encode() if isinstance(content, str) else content)
    assert read(tmp_path / f"{name}.{compression}", compressed) == (ROWS, [])


def test_rows_know_their_lines_and_the_split_that_a_file_names(tmp_path: Path) -> None:
    def lines(name: str, content: str | bytes) -> list[tuple[int, str | None]]:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return [(row.line, row.split) for row in read_file(tmp_path / name) if isinstance(row, Row)]

    assert lines("a.jsonl", '\n{"a": 1}\n\n{"a": 2}\n') == [(2, None), (4, None)]
    assert lines("b.jsonl", '{\n"a": 1\n}\n{\n"a": 2\n}\n') == [(1, None), (4, None)]
    assert lines("c.json", '[\n{"a": 1}, {"a": 2},\n{"a": 3}]') == [(2, None), (2, None), (3, None)]
    assert lines("d.csv", 'a,b\n\n1,"x\ny"\n2,z\n') == [(3, None), (5, None)]
    assert lines("e.parquet", parquet())[-1] == (50, None)
    assert lines("f.json", '{"train": [{"a": 1}], "dev": [{"a": 2}], "test": []}') == [(1, "train"), (1, "dev")]


SINGLE = [
    {"messages": [{"role": "user", "content": "Hi"}]},
    {"question": "a", "answer": "b"},
    {"messages": [{"role": "user", "content": "Hi"}], "id": 1},
    {"question": "a", "answer": "b", "tools": [{"name": "add"}]},
    {"name": "unknown", "tags": ["a", "b"]},
    {"name": "unknown", "tags": []},
    {key: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": key}] for key in ("chosen", "rejected")},
]


@pytest.mark.parametrize("row", SINGLE)
def test_a_single_object_is_a_single_row(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read(tmp_path / "a.json", json.dumps(row, indent=1)) == ([row], [])
    assert read(tmp_path / "b.json", json.dumps(row)) == ([row], [])


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow", "a.csv.zst"])
def test_an_empty_file_has_no_row(tmp_path: Path, name: str) -> None:
    assert read(tmp_path / name, b"") == ([], [])


def test_numbers_of_a_column_of_whole_floats_are_integers(tmp_path: Path) -> None:
    table = pa.table({"whole": [7.0, None, float("nan")], "half": [7.0, 0.5, None], "text": ["a", "b", "c"]})
    rows, _ = read(tmp_path / "a.parquet", parquet(table))
    assert [row["whole"] for row in rows] == [7, None, None]
    assert isinstance(rows[0]["whole"], int)
    assert [row["half"] for row in rows] == [7.0, 0.5, None]
    assert isinstance(rows[0]["half"], float)


BAD_LINES = [
    (b'{"a": "cut\n', "not valid JSON (Invalid control character at)"),
    (b"\0\0\0\n", "not valid JSON (Expecting value)"),
    (b'{"a": ' + b"[" * 100_000 + b"\n", "not valid JSON (maximum recursion depth exceeded"),
    (b'{"a": ' + b"1" * 5_000 + b"}\n", "not valid JSON (Exceeds the limit"),
    ('{"a": "é"}\n'.encode("latin-1"), "not UTF-8 (byte 7 of the line)"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
@pytest.mark.parametrize("before", [0, 2])
def test_an_unreadable_line_does_not_end_the_file(tmp_path: Path, bad: bytes, reason: str, before: int) -> None:
    lines = LINES.encode().splitlines(keepends=True)
    lines.insert(before, bad)
    rows, (found,) = read(tmp_path / "a.jsonl", b"".join(lines))
    assert rows == ROWS
    assert found.line == before + 1
    assert found.reason.startswith(reason)
    assert len(found.text) <= 4 * 1000


def test_after_a_broken_object_reading_goes_on_with_the_next_line_that_begins_one(tmp_path: Path) -> None:
    pretty = [json.dumps(row, indent=2) + "\n" for row in ROWS]
    pretty[3] = '{\n  "question": "a",\n  "answer": oops\n}\n'
    rows, (found,) = read(tmp_path / "a.jsonl", "".join(pretty))
    assert (rows, found.line) == (ROWS[:3] + ROWS[4:], 13)
    rows, (found,) = read(tmp_path / "a.json", '[\n{"a": 1},\n{"a": oops},\n{"a": 3}\n]')
    assert (rows, found.line) == ([{"a": 1}, {"a": 3}], 3)


CUT = [
    ("a.jsonl", LINES.encode()[:-40], 49),
    ("a.json", json.dumps(ROWS).encode()[:-40], 49),
    ("b.json", b'[{"a": 1}\n', 1),
    ("a.csv", csv_of(",").encode()[:-10], 49),
    ("a.jsonl.gz", gzip.compress(LINES.encode() * 5000)[:-40], 1),
    ("a.csv.xz", lzma.compress(csv_of(",").encode())[:-40], 0),
    ("a.jsonl.gz", b"no archive", 0),
    ("a.jsonl.zst", b"no archive", 0),
    ("a.parquet", parquet()[:-20], 0),
    ("a.parquet", b"PAR1 and then nothing", 0),
    ("a.arrow", arrow(pa.ipc.new_stream)[:-700], 30),
    ("a.arrow", b"nothing", 0),
]


@pytest.mark.parametrize(("name", "content", "least"), CUT)
def test_a_file_cut_short_keeps_the_rows_before_it(tmp_path: Path, name: str, content: bytes, least: int) -> None:
    rows, bad = read(tmp_path / name, content)
    assert len(rows) >= least
    assert all(row in ROWS or row == {"a": 1} for row in rows)
    assert bad
    assert all("\n" not in line.reason for line in bad)


def test_a_csv_record_with_a_lost_quote_ends_no_file(tmp_path: Path) -> None:
    rows, bad = read(tmp_path / "a.csv", 'a,b\n1,"x\n2,y\n3,"z"\n')
    assert rows == [{"a": "2", "b": "y"}, {"a": "3", "b": "z"}]
    assert [line.line for line in bad] == [2]


def test_bytes_that_are_no_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    rows, (found,) = read(tmp_path / "a.csv", "a,b\n1,x\n2,é\n3,z\n".encode("latin-1"))
    assert (len(rows), found) == (2, BadLine(3, "not UTF-8", "2,\udce9\n"))
    rows, (found,) = read(tmp_path / "a.json", '[{"a": 1},\n{"a": "é"},\n{"a": 3}]'.encode("latin-1"))
    assert (rows, found.line) == ([{"a": 1}, {"a": 3}], 2)
    column = pa.array([b"a", "é".encode("latin-1"), b"c"], pa.binary()).view(pa.string())
    rows, (found,) = read(tmp_path / "a.parquet", parquet(pa.table({"a": column})))
    assert (rows, found) == ([{"a": "a"}, {"a": "c"}], BadLine(2, "not UTF-8", ""))


def test_a_file_that_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_file(tmp_path / "none.jsonl"))


def test_large_values_are_read_over_the_bounds_of_what_is_held(tmp_path: Path) -> None:
    rows = [{"text": str(n) * size} for n, size in enumerate((10, 3_000_000, 5, 1_048_560, 1_048_570, 7))]
    assert read(tmp_path / "a.json", json.dumps(rows)) == (rows, [])
    assert read(tmp_path / "b.jsonl", "".join(json.dumps(row, indent=1) + "\n" for row in rows)) == (rows, [])
