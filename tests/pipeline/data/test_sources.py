import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_hub import COMMIT

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.data.sources import find_files, load

ROWS = [{"question": "Où?", "answer": "Là."}, {"question": "Who, then?", "answer": 'He said "I".\nTwice.'}]


def rows_of(root: Path, *files: str) -> list[list[Any]]:
    settings = DataSettings("local", "files", list(files) or ["raw/**/*"])
    return [list(source.rows) for source in load(settings, root)]


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def put_each_kind(folder: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    put(folder / "a.jsonl", lines)
    put(folder / "deep/er/b.json", json.dumps(ROWS, indent=1, ensure_ascii=False))
    put(folder / "c.csv", 'question,answer\nOù?,Là.\n"Who, then?","He said ""I"".\nTwice."\n')
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "d.parquet")
    put(folder / "e.JSON", lines)


def test_every_kind_of_file_gives_the_same_rows_at_any_depth(tmp_path: Path) -> None:
    put_each_kind(tmp_path / "raw")
    assert rows_of(tmp_path) == [ROWS] * 5


def test_files_come_in_sorted_order_and_once_even_if_two_globs_match(tmp_path: Path) -> None:
    put_each_kind(tmp_path / "raw")
    settings = DataSettings("local", "files", ["raw/**/*", "raw/*.csv"])
    names = [source.name for source in load(settings, tmp_path)]
    assert names == ["raw/a.jsonl", "raw/c.csv", "raw/d.parquet", "raw/deep/er/b.json", "raw/e.JSON"]


def test_hidden_files_are_left_out_and_unknown_suffixes_set_apart(tmp_path: Path) -> None:
    for name in ("raw/.gitkeep", "raw/notes.md", "raw/a.jsonl"):
        put(tmp_path / name, json.dumps(ROWS[0]))
    found = find_files(DataSettings("local", "files", ["raw/**/*"]), tmp_path)
    assert found == (["raw/a.jsonl"], ["raw/notes.md"])


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    put(tmp_path / "raw/a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    put(tmp_path / "raw/b.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n")
    assert rows_of(tmp_path) == [[{"a": 1}, {"a": 2}], [{"a": "1", "b": "2"}]]


def test_a_line_separator_inside_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    row = {"question": "one\u2028two\x85three", "answer": "x"}
    put(tmp_path / "raw/a.jsonl", json.dumps(row, ensure_ascii=False))
    assert rows_of(tmp_path) == [[row]]


def test_csv_cells_that_are_empty_or_nan_are_null(tmp_path: Path) -> None:
    put(tmp_path / "raw/a.csv", 'a,b,c,d\n,NaN,nan,None\n"",x\n')
    nulls = {"a": None, "b": None, "c": None, "d": "None"}
    assert rows_of(tmp_path) == [[nulls, {"a": None, "b": "x", "c": None, "d": None}]]


def test_a_csv_cell_may_be_longer_than_the_csv_modules_default(tmp_path: Path) -> None:
    put(tmp_path / "raw/a.csv", "a\n" + "x" * 200_000 + "\n")
    assert len(rows_of(tmp_path)[0][0]["a"]) == 200_000


HALF = b'{"question": "Where?", "answer": "There."}\n{"question": "Whe'
BAD_FILES = {
    "a.jsonl": [
        (b"", "raw/a.jsonl is empty"),
        (b" \n\n", "raw/a.jsonl is empty"),
        (HALF, "raw/a.jsonl, line 2: not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, "raw/a.jsonl, line 1: not valid JSON"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "raw/a.jsonl, line 1: not valid JSON"),
        ('{"a": "b"}\n{"a": "é"}\n'.encode("latin-1"), "raw/a.jsonl, line 2, byte 18: not UTF-8"),
        ('{"a": 1}\n'.encode("utf-16"), "raw/a.jsonl, line 1, byte 0: not UTF-8"),
    ],
    "a.json": [
        (b"", "raw/a.json is empty"),
        (b"[]", "raw/a.json is empty"),
        (b'[\n{"a": 1},\n{"a":', "raw/a.json, line 3: not valid JSON"),
        (HALF, "raw/a.json, line 2: not valid JSON"),
        (b'{"data": [], "version": 1}', "raw/a.json holds an object with the keys data, version"),
        (b"7", "raw/a.json holds int"),
        ('[{"a":\n"é"}]'.encode("latin-1"), "raw/a.json, line 2, byte 8: not UTF-8"),
    ],
    "a.csv": [
        (b"", "raw/a.csv is empty"),
        (b"question,answer\n", "raw/a.csv is empty"),
        (b'question,answer\na,b\nc,"half', "raw/a.csv, line 3: not valid CSV"),
        ("question,answer\né,b\n".encode("latin-1"), "raw/a.csv, line 2, byte 16: not UTF-8"),
    ],
    "a.parquet": [
        (b"", "raw/a.parquet is empty"),
        (b"PAR1 and then nothing", "raw/a.parquet is not a whole Parquet file"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [(name, content, message) for name, cases in BAD_FILES.items() for content, message in cases],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_is_named_in_one_line_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    put(tmp_path / "raw" / name, content)
    with pytest.raises(UserError) as caught:
        rows_of(tmp_path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raw/a.parquet"
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"^raw/a\.parquet is not a whole Parquet file"):
        rows_of(tmp_path)


def test_a_parquet_file_with_texts_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raw/a.parquet"
    path.parent.mkdir()
    column = pa.array(["é".encode("latin-1")], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"question": column}), path)
    with pytest.raises(UserError, match=r"^raw/a\.parquet: a text in it is not UTF-8"):
        rows_of(tmp_path)


def test_no_matching_file_says_where_data_belongs_and_what_was_ignored(tmp_path: Path) -> None:
    put(tmp_path / "raw/notes.md", "x")
    with pytest.raises(UserError, match=r"no data file matches raw/\*\*/\* \(ignored: raw/notes\.md\).*data=starter"):
        rows_of(tmp_path)


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    put(tmp_path / "raw/a.jsonl", "{}")
    (source,) = load(DataSettings("local", "files", ["raw/*"]), tmp_path)
    (tmp_path / "raw/a.jsonl").unlink()
    with pytest.raises(UserError, match=r"^cannot read raw/a\.jsonl: No such file"):
        list(source.rows)


def test_a_hub_dataset_comes_with_the_commit_that_the_hub_names(load_from_hub: Any, hub: str) -> None:
    done = load_from_hub(hub)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert (loaded["name"], loaded["revision"]) == ("owner/chats:train", COMMIT)
    assert loaded["rows"][1] == {"question": "Is 1 even?", "answer": "False"}
    assert len(loaded["rows"]) == 6


def test_a_pinned_commit_loads_offline_from_the_cache_and_no_other_takes_its_place(
    load_from_hub: Any, hub: str, closed_port: str
) -> None:
    assert load_from_hub(hub, revision=COMMIT).returncode == 0
    again = load_from_hub(closed_port, offline=True, revision=COMMIT)
    assert json.loads(again.stdout)["revision"] == COMMIT
    other = load_from_hub(closed_port, offline=True, revision="0" * 40)
    assert f"UserError: owner/chats at {'0' * 40} cannot be had, and the cache holds another" in other.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "owner/none"}, "the Hugging Face hub did not give owner/none"),
        ({"path": "not a name"}, "the Hugging Face hub did not give not a name"),
        ({"split": "dev"}, "Unknown split \"dev\". Should be one of ['train']"),
        ({"subset": "small"}, "BuilderConfig 'small' not found. Available: ['default']"),
        ({"revision": "0" * 40}, "the Hugging Face hub did not give owner/chats"),
    ],
)
def test_what_the_hub_does_not_have_ends_in_one_line(
    load_from_hub: Any, hub: str, settings: dict[str, str], message: str
) -> None:
    done = load_from_hub(hub, **settings)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("UserError: ")
    assert message in last
    assert "data=starter and data=local work offline" in last
    assert "Traceback" not in done.stderr


def test_a_hub_out_of_reach_ends_in_one_line_that_says_what_works_offline(load_from_hub: Any, closed_port: str) -> None:
    done = load_from_hub(closed_port)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("UserError: cannot reach the Hugging Face hub for owner/chats")
    assert line.endswith("data=starter and data=local work offline")


def test_offline_mode_is_respected_even_where_the_hub_answers(load_from_hub: Any, hub: str) -> None:
    done = load_from_hub(hub, offline=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("UserError: HF_HUB_OFFLINE is set")
    assert "owner/chats" in line
    assert line.endswith("data=starter and data=local work offline")
