import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mounts import may_mount
from raw_rows import local, put_rows, splits_in

import pipeline
from common.errors import UserError
from common.files import sha256
from pipeline.core.formats import FORMATS, Columns, Format, Messages
from pipeline.core.records import PrepareReport
from pipeline.data.report import split_report
from pipeline.stages.prepare import SCHEMA, prepare

QUESTION = {"prompt": "Question 0?", "answer": "Answer 0", "kind": "text", "group": "held_out", "task": "recall"}

RUN = """
import sys
from pathlib import Path
from pipeline.core.data_settings import DataSettings
from common.errors import UserError
from pipeline.stages.prepare import prepare
try:
    prepare(DataSettings("local", "files", ["data/raw/**/*"]), Path(sys.argv[1]), Path(sys.argv[2]))
except UserError as error:
    sys.exit(f"UserError: {error}")
"""


def pairs(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"Question {n}?", "answer": f"Answer {n}"} for n in range(start, start + count)]


def command(root: Path, out: Path) -> list[str]:
    return [sys.executable, "-c", RUN, str(root), str(out)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(pipeline.__file__).parents[1])}


def test_files_of_several_formats_become_three_splits_and_a_report(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(50), *pairs(5), {"question": "Why?", "answer": ""}, 7])
    chats = [
        {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Yo"}]}
        for n in range(50)
    ]
    put_rows(tmp_path, "more/b.jsonl", [*chats, {"messages": [{"role": "user", "content": "Hi"}]}])
    (tmp_path / "data/raw/notes.txt").write_text("x")
    report = prepare(local(validation=10, test=7), tmp_path, tmp_path)

    assert PrepareReport.read(tmp_path / "reports/prepare.json").tree() == report
    assert report["files"] == [
        {
            "file": "data/raw/a.jsonl",
            "format": "pairs",
            "rows": 57,
            "usable": 55,
            "dropped": {"empty message": 1, "not an object": 1},
        },
        {
            "file": "data/raw/more/b.jsonl",
            "format": "messages",
            "rows": 51,
            "usable": 50,
            "dropped": {"no assistant turn": 1},
        },
    ]
    assert report["not_read"] == {"data/raw/notes.txt": "unknown suffix"}
    assert report["duplicates"] == 5
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 83, "validation": 10, "test": 7}
    prepared = tmp_path / "data/prepared"
    assert sorted(path.name for path in prepared.iterdir()) == [
        "made_from.json",
        "questions.jsonl",
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    assert (prepared / "questions.jsonl").read_bytes() == b""
    assert pq.read_schema(prepared / "train.parquet").equals(SCHEMA)
    rows = [json.dumps(row) for part in splits_in(prepared).values() for row in part]
    assert len(rows) == len(set(rows)) == 100


def test_a_turn_that_is_not_learnt_keeps_its_weight_and_is_another_conversation(tmp_path: Path) -> None:
    def rows(weight: int) -> list[Any]:
        turns = ("user", "Hi", 1), ("assistant", "Bad", weight), ("user", "No"), ("assistant", "Good")
        named = [dict(zip(("role", "content", "weight"), turn, strict=False)) for turn in turns]
        return [{"messages": [{**named[0], "content": f"Hi {n}"}, *named[1:]]} for n in range(10)]

    put_rows(tmp_path, "a.jsonl", [*rows(0), *rows(1)])
    report = prepare(local(validation=2, test=2), tmp_path, tmp_path)
    assert report["duplicates"] == 0
    for name, part in report["splits"].items():
        messages = splits_in(tmp_path / "data/prepared")[name]
        assert split_report(messages)["sha256"] == part["sha256"]
        assert {tuple(message["weight"] for message in chat) for chat in messages} <= {(1, 0, 1, 1), (1, 1, 1, 1)}


def test_plain_texts_become_messages_of_their_own_role(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [{"text": f"Once upon a time there were {n}."} for n in range(10)])
    report = prepare(local(validation=2, test=2), tmp_path, tmp_path)
    assert report["files"][0]["format"] == "text"
    assert pq.read_schema(tmp_path / "data/prepared/train.parquet").equals(SCHEMA)
    chats = [chat for part in splits_in(tmp_path / "data/prepared").values() for chat in part]
    assert {message["role"] for chat in chats for message in chat} == {"text"}


def test_the_same_input_gives_the_same_bytes_and_the_order_of_files_and_rows_does_not_count(tmp_path: Path) -> None:
    rows = [*pairs(400), {"question": " Question 1?", "answer": "Answer  1"}]
    digests, reports = set(), []
    for seed, (first, second) in enumerate([("a", "b"), ("a", "b"), ("b", "a"), ("z/c", "a")]):
        root = tmp_path / str(seed)
        shuffled = random.Random(max(seed, 1)).sample(rows, len(rows))  # the first two alike
        put_rows(root, f"{first}.jsonl", shuffled[:150])
        put_rows(root, f"{second}.jsonl", shuffled[150:])
        prepare(local(), root, root)
        (root / "data/prepared/made_from.json").unlink()  # which names the files
        digests.add(sha256(root / "data/prepared"))
        reports.append((root / "reports/prepare.json").read_bytes())
    assert len(digests) == 1
    assert reports[0] == reports[1]


def test_a_second_run_replaces_the_first(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(100))
    prepare(local(), tmp_path, tmp_path)
    put_rows(tmp_path, "a.jsonl", pairs(50))
    prepare(local(), tmp_path, tmp_path)
    assert sum(len(part) for part in splits_in(tmp_path / "data/prepared").values()) == 50
    assert [path.name for path in (tmp_path / "data").iterdir() if path.name.startswith(".")] == []


def test_max_rows_limits_the_rows_read_over_all_files(tmp_path: Path) -> None:
    for start, name in enumerate(("a", "b", "c")):
        put_rows(tmp_path, f"{name}.jsonl", pairs(100, start * 100))
    report = prepare(local(max_rows=150), tmp_path, tmp_path)
    assert [file["rows"] for file in report["files"]] == [100, 50]
    assert report["not_read"] == {"data/raw/c.jsonl": "data.max_rows 150 reached"}
    assert sum(part["rows"] for part in report["splits"].values()) == 150


def test_a_forced_format_is_not_guessed(tmp_path: Path) -> None:
    rows = [{"instruction": f"Do {n}", "output": "done", "prompt": f"Ask {n}", "response": "said"} for n in range(10)]
    put_rows(tmp_path, "a.jsonl", rows)
    assert prepare(local(), tmp_path, tmp_path)["files"][0]["format"] == "alpaca"
    prepare(local(format="pairs"), tmp_path, tmp_path)
    assert splits_in(tmp_path / "data/prepared")["train"][0][1]["content"] == "said"


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        (
            [{"title": "a"}, {"body": "b"}],
            "auto",
            r"\(no known format\); keys found: title, body; formats known: messages",
        ),
        ([1, [2]], "auto", r"\(no known format\); keys found: none, since its rows are no objects;"),
        (
            [{"question": "", "answer": "a"}] * 3,
            "auto",
            r"\(read as pairs: 3 empty message\); keys found: question, ans",
        ),
        (pairs(2), "alpaca", r"\(read as alpaca: 2 missing field\); keys found: question, answer;"),
    ],
)
def test_a_file_without_a_usable_row_is_named_with_its_keys(
    tmp_path: Path, rows: list[Any], wanted: str, message: str
) -> None:
    put_rows(tmp_path, "b.jsonl", rows)
    with pytest.raises(UserError, match=rf"^data/raw/b\.jsonl has no usable row {message}"):
        prepare(local(format=wanted), tmp_path, tmp_path)
    assert not (tmp_path / "data/prepared").exists()
    assert not (tmp_path / "reports").exists()


def test_a_format_is_added_by_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(columns: Columns) -> Messages:
        front, back = columns["card"].split(" // ")
        return [{"role": "user", "content": front}, {"role": "assistant", "content": back}]

    put_rows(tmp_path, "a.jsonl", [{"Card": f"Front {n} // Back {n}"} for n in range(20)])
    put_rows(tmp_path, "b.jsonl", pairs(20))
    with pytest.raises(UserError, match=r"a\.jsonl has no usable row"):
        prepare(local(), tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"^data\.format is 'cards'; it may be one of auto, messages"):
        prepare(local(format="cards"), tmp_path, tmp_path)
    cards = Format("cards", "card: front // back", fits=lambda columns: "card" in columns, read=read)
    monkeypatch.setitem(FORMATS, cards.name, cards)
    report = prepare(local(), tmp_path, tmp_path)
    assert [file["format"] for file in report["files"]] == ["cards", "pairs"]
    answers = {row[1]["content"] for part in splits_in(tmp_path / "data/prepared").values() for row in part}
    assert answers == {f"{said} {n}" for said in ("Back", "Answer") for n in range(20)}
    assert prepare(local(format="cards", files=["data/raw/a.jsonl"]), tmp_path, tmp_path)["files"][0]["usable"] == 20
    put_rows(tmp_path, "a.jsonl", [{"cart": "Front"}])
    with pytest.raises(UserError, match=r"formats known: messages .*, cards \(card: front // back\)$"):
        prepare(local(), tmp_path, tmp_path)


def test_questions_that_stand_in_training_are_left_out_and_counted(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(60))
    questions = [QUESTION | {"prompt": f"Question {n}?"} for n in range(60)] + [QUESTION | {"prompt": "Größe?"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    report = prepare(local(questions="q.jsonl", validation=5, test=5), tmp_path, tmp_path)
    assert report["questions"] == {"given": 61, "in_training": 50, "kept": 11, "groups": {"held_out": 11}}
    lines = (tmp_path / "data/prepared/questions.jsonl").read_text(encoding="utf-8").splitlines()
    trained = {row[0]["content"] for row in splits_in(tmp_path / "data/prepared")["train"]}
    assert len(lines) == 11
    assert not trained & {json.loads(line)["prompt"] for line in lines}


def test_near_duplicates_are_dropped_where_asked_and_counted(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(40))
    put_rows(tmp_path, "a.jsonl", [*pairs(60), *({"question": f"{text} {n}", "answer": "Yes"} for n in range(5))])
    report = prepare(local(validation=5, test=5, near_duplicates=0.9), tmp_path, tmp_path)
    assert report["near_duplicates"] == 4
    assert sum(part["rows"] for part in report["splits"].values()) == 61
    assert prepare(local(validation=5, test=5), tmp_path, tmp_path)["near_duplicates"] == 0


def test_an_error_leaves_the_last_result_as_it_was(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(60))
    prepare(local(), tmp_path, tmp_path)
    before = sha256(tmp_path / "data/prepared"), sha256(tmp_path / "reports")
    put_rows(tmp_path, "b.jsonl", [])
    with pytest.raises(UserError, match=r"^data/raw/b\.jsonl is empty"):
        prepare(local(), tmp_path, tmp_path)
    assert (sha256(tmp_path / "data/prepared"), sha256(tmp_path / "reports")) == before


def test_the_closing_table_names_what_was_read_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(1200), {"question": "Why?"}, *pairs(2)])
    prepare(local(validation=60, test=60), tmp_path, tmp_path)
    printed = capsys.readouterr()
    for figure in ("a.jsonl", "pairs", "1,203", "1,202", "1 missing field", "dropped: 2", "train 1,080", "test 60"):
        assert figure in printed.out
    assert printed.err == ""


@pytest.mark.skipif(not may_mount(), reason="a full disk needs `unshare -rm` and a tmpfs mount")
def test_a_full_disk_ends_in_one_line_and_leaves_the_last_result(tmp_path: Path) -> None:
    put_rows(
        tmp_path,
        "a.jsonl",
        [{"question": f"{n}?", "answer": random.Random(n).randbytes(200).hex()} for n in range(2000)],
    )
    put_rows(tmp_path / "few", "a.jsonl", pairs(20))
    disk = tmp_path / "disk"
    disk.mkdir()
    # The disk lives in a mount namespace of its own and goes with it.
    script = f"""
        mount -t tmpfs -o size=128k none {disk} || exit 99
        {sys.executable} -c "$1" {tmp_path}/few {disk} > /dev/null || exit 98
        sha256sum {disk}/data/prepared/* {disk}/reports/*
        {sys.executable} -c "$1" {tmp_path} {disk}
        echo "exit $?"
        sha256sum {disk}/data/prepared/* {disk}/reports/*
        find {disk} -name '.*'
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", RUN],
        env=environment(), capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    before, after = done.stdout.split("exit 1\n")
    assert before == after
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"UserError: cannot write {disk}/data/prepared: No space left on device; make room")


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_killed_run_leaves_no_half_written_folder(tmp_path: Path, delay: float) -> None:
    put_rows(tmp_path, "a.jsonl", [{"question": f"{n}?", "answer": "word " * 200} for n in range(20_000)])
    process = subprocess.Popen(command(tmp_path, tmp_path), env=environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("data/.prepared.*")):
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    prepared = tmp_path / "data/prepared"
    if prepared.exists():  # the rename had been reached
        assert sum(len(part) for part in splits_in(prepared).values()) == 20_000
        assert (prepared / "questions.jsonl").exists()


def test_large_splits_are_written_in_row_groups_and_read_whole(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(25_000))
    prepare(local(validation=1250, test=1250), tmp_path, tmp_path)
    file = pq.ParquetFile(tmp_path / "data/prepared/train.parquet")
    assert file.metadata.num_row_groups == 3
    assert file.metadata.num_rows == 22_500
    assert isinstance(file.read(), pa.Table)
