import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_hub import COMMIT, FEEDBACK

from common.errors import UserError
from pipeline.core.data_settings import DataSettings
from pipeline.data.lines import Row
from pipeline.data.sources import find_files, load, why_ignored

ROWS = [{"question": "Où?", "answer": "Là."}, {"question": "Who, then?", "answer": 'He said "I".\nTwice.'}]


def rows_of(root: Path, *files: str) -> list[list[Any]]:
    settings = DataSettings("local", "files", list(files) or ["raw/**/*"])
    return [[row.value for row in source.rows if isinstance(row, Row)] for source in load(settings, root)]


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


def test_the_metadata_of_a_clone_and_of_save_to_disk_is_no_data(tmp_path: Path) -> None:
    names = ["README.md", "dataset_dict.json", "train/dataset_info.json", "train/state.json"]
    for name in [*names, "train/data-0.jsonl"]:
        put(tmp_path / "raw" / name, json.dumps(ROWS[0]))
    readable, ignored = find_files(DataSettings("local", "files", ["raw/**/*"]), tmp_path)
    assert readable == ["raw/train/data-0.jsonl"]
    assert ignored == [f"raw/{name}" for name in names]
    assert {why_ignored(name) for name in ignored} == {"a dataset's metadata"}
    assert why_ignored("raw/notes.md") == "unknown suffix"


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raw/a.jsonl"
    put(path, '{"a": 1}\n' * 3)
    rows = iter(load(DataSettings("local", "files", ["raw/*"]), tmp_path)[0].rows)
    next(rows)
    put(path, '{"a": 1}\n' * 4)
    with pytest.raises(UserError, match=r"^raw/a\.jsonl was changed while it was read"):
        list(rows)


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
    (loaded,) = json.loads(done.stdout)
    assert (loaded["name"], loaded["revision"]) == ("owner/chats:train", COMMIT)
    assert loaded["rows"][1] == {"question": "Is 1 even?", "answer": "False"}
    assert len(loaded["rows"]) == 6


def test_a_pinned_commit_loads_offline_from_the_cache_and_no_other_takes_its_place(
    load_from_hub: Any, hub: str, closed_port: str
) -> None:
    assert load_from_hub(hub, revision=COMMIT).returncode == 0
    again = load_from_hub(closed_port, offline=True, revision=COMMIT)
    assert json.loads(again.stdout)[0]["revision"] == COMMIT
    other = load_from_hub(closed_port, offline=True, revision="0" * 40)
    assert f"UserError: owner/chats at {'0' * 40} cannot be had, and the cache holds another" in other.stderr


def test_feedback_on_the_hub_is_read_record_by_record_whatever_each_has(
    load_from_hub: Any, hub: str, closed_port: str
) -> None:
    done = load_from_hub(hub, path="owner/feedback", revision=COMMIT)
    assert done.returncode == 0, done.stderr
    (loaded,) = json.loads(done.stdout)
    assert (loaded["name"], loaded["split"], loaded["revision"]) == ("owner/feedback:train", "train", COMMIT)
    assert loaded["rows"] == [row for rows in FEEDBACK.values() for row in rows]
    offline = load_from_hub(closed_port, offline=True, path="owner/feedback", revision=COMMIT)
    assert json.loads(offline.stdout) == [loaded]
    refused = load_from_hub(hub, path="owner/feedback", split=["train", "test"])
    assert refused.stderr.splitlines()[-1] == (
        "UserError: owner/feedback has feedback, in no splits of its own; set data.split to train, and not "
        "['train', 'test']"
    )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("asked", "found"),
    [(None, ["train", "validation", "test"]), (["test", "train"], ["test", "train"]), ("validation", ["validation"])],
)
def test_splits_of_a_hub_dataset_are_taken_as_asked_for_and_whole_floats_are_integers(
    load_from_hub: Any, hub: str, asked: Any, found: list[str], streaming: bool
) -> None:
    done = load_from_hub(hub, path="owner/splits", split=asked, streaming=streaming)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert [(split["name"], split["split"]) for split in loaded] == [(f"owner/splits:{name}", name) for name in found]
    assert {split["revision"] for split in loaded} == {COMMIT}
    sizes = {"train": 30, "validation": 4, "test": 5}
    assert [len(split["rows"]) for split in loaded] == [sizes[name] for name in found]
    assert json.dumps(loaded[0]["rows"][2]) == json.dumps({"question": f"{found[0]} 2 + 1?", "answer": 3})


def test_what_is_streamed_is_not_kept(load_from_hub: Any, hub: str, tmp_path: Path) -> None:
    assert load_from_hub(hub, path="owner/splits", split=None, streaming=True).returncode == 0
    kept = [path for path in (tmp_path / "huggingface").rglob("*") if path.is_file()]
    assert not [path for path in kept if path.suffix in (".arrow", ".parquet") or path.stat().st_size > 1000]


def test_a_streamed_dataset_out_of_reach_ends_in_one_line(load_from_hub: Any, closed_port: str) -> None:
    done = load_from_hub(closed_port, path="owner/splits", revision=COMMIT, streaming=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("UserError: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "owner/none"}, "the Hugging Face hub did not give owner/none"),
        ({"path": "owner/script"}, "Dataset scripts are no longer supported, but found script.py"),
        ({"path": "owner/broken"}, "the Hugging Face hub did not give owner/broken"),
        ({"path": "owner/broken", "streaming": True}, "the Hugging Face hub did not give owner/broken"),
        ({"path": "not a name"}, "the Hugging Face hub did not give not a name"),
        ({"split": "dev"}, "Unknown split \"dev\". Should be one of ['train']"),
        ({"split": ["train", "dev"]}, "Unknown split \"dev\". Should be one of ['train']"),
        ({"split": "dev", "streaming": True}, "Bad split: dev. Available splits: ['train']"),
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


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    put_each_kind(tmp_path / "raw")
    (tmp_path / os.fsdecode(b"raw/\xff.jsonl")).write_text("{}\n")
    with pytest.raises(UserError, match=r"the name of b'raw/\\xff.jsonl' is not UTF-8"):
        find_files(DataSettings("local", "files", ["raw/**/*"]), tmp_path)


def test_a_folder_that_links_lead_to_in_several_ways_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/a.jsonl").write_text("{}")
    (tmp_path / "data/raw/again").symlink_to(".")
    assert find_files(DataSettings("local", "files", ["data/raw/**/*"]), tmp_path) == (["data/raw/a.jsonl"], [])
