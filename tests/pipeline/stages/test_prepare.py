import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
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
from pipeline.core.data_settings import NO_CLEANING
from pipeline.core.formats import FORMATS, Columns, Format, Messages
from pipeline.core.records import PrepareReport
from pipeline.data.message_schema import schema_of
from pipeline.data.report import split_report
from pipeline.stages.data_report import show
from pipeline.stages.prepare import prepare

PLAIN = schema_of({"role", "content"})
STARTER = Path(__file__).parents[3] / "starter/models/starter-s"
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


def test_splits_that_one_json_lists_are_used_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    listed = {"train": pairs(30), "valid": pairs(4, 100), "test": pairs(5, 200)}
    (tmp_path / "data/raw/a.json").write_text(json.dumps(listed))
    report = prepare(local(validation=0, test=0), tmp_path, tmp_path)
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 30, "validation": 4, "test": 5}
    assert report["own_splits"] == {"validation": ["data/raw/a.json"], "test": ["data/raw/a.json"]}
    merged = prepare(local(validation=3, test=3, own_splits=False), tmp_path, tmp_path)
    assert merged["splits"]["train"]["rows"] == 33


def test_what_the_rules_find_is_left_out_with_its_place_and_counts_as_no_fault(tmp_path: Path) -> None:
    refused = [{"question": f"How {n}?", "answer": "I'm sorry, but I can't help with that."} for n in range(20)]
    put_rows(tmp_path, "a.jsonl", [*pairs(30), *refused, {"question": "Who?", "answer": "jo@example.org"}])
    clean = replace(NO_CLEANING, refusals="drop", leftovers="count", mask=["email"])
    report = prepare(local(validation=5, test=5, clean=clean), tmp_path, tmp_path)
    assert report["files"][0]["dropped"] == {"answer is a refusal": 20}
    assert report["cleaning"]["refusal"] == {"mode": "drop", "rows": 20, "examples": [refused[0]["answer"]]}
    assert report["cleaning"]["leftovers"]["rows"] == 0
    assert report["masked"] == {"email": 1}
    rejected = [json.loads(line) for line in (tmp_path / "data/rejected.jsonl").read_text().splitlines()]
    assert [(row["line"], row["row"]) for row in rejected] == list(enumerate(refused, start=31))
    kept = [messages for split in splits_in(tmp_path / "data/prepared").values() for messages in split]
    assert len(kept) == 31
    assert [messages[1]["content"] for messages in kept if messages[0]["content"] == "Who?"] == ["<EMAIL>"]


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
    assert pq.read_schema(prepared / "train.parquet").equals(PLAIN)
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
    assert pq.read_schema(tmp_path / "data/prepared/train.parquet").equals(PLAIN)
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


def test_max_rows_is_a_sample_of_all_files_whatever_their_order(tmp_path: Path) -> None:
    for start, name in enumerate(("a", "b", "c")):
        put_rows(tmp_path, f"{name}.jsonl", pairs(100, start * 100))
    report = prepare(local(max_rows=150), tmp_path, tmp_path)
    assert [file["rows"] for file in report["files"]] == [100] * 3
    assert report["sampled_out"] == 150
    assert sum(part["rows"] for part in report["splits"].values()) == 150
    numbers = [int(re.findall(r"\d+", row[0]["content"])[0]) for row in splits_in(tmp_path / "data/prepared")["train"]]
    assert all(30 < sum(n // 100 == hundred for n in numbers) < 60 for hundred in range(3))
    (tmp_path / "data/raw/a.jsonl").rename(tmp_path / "data/raw/z.jsonl")
    again = prepare(local(max_rows=150), tmp_path, tmp_path)
    assert again["splits"] == report["splits"]


def test_a_forced_format_is_not_guessed(tmp_path: Path) -> None:
    rows = [{"instruction": f"Do {n}", "output": "done", "prompt": f"Ask {n}", "response": "said"} for n in range(10)]
    put_rows(tmp_path, "a.jsonl", rows)
    assert prepare(local(), tmp_path, tmp_path)["files"][0]["format"] == "alpaca"
    prepare(local(format="pairs"), tmp_path, tmp_path)
    assert splits_in(tmp_path / "data/prepared")["train"][0][1]["content"] == "said"


def rejected(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "data/rejected.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("rows", "wanted", "message"),
    [
        (
            [{"title": "a"}, {"body": "b"}],
            "auto",
            r": 2 no known format\. The first: data/raw/b\.jsonl:1 no known format; data/raw/b\.jsonl:2 no .* "
            r"All are in data/rejected\.jsonl; keys found .*: title, body; formats known: messages",
        ),
        ([1, [2]], "auto", r": 2 not an object\..*; keys found in .*: none, since the rows are no objects;"),
        ([{"question": "", "answer": "a"}] * 2, "auto", r": 2 empty message\. The first"),
        (pairs(2), "alpaca", r": 2 missing field\. The first"),
    ],
)
def test_a_set_without_a_usable_row_is_named_with_its_rejects(
    tmp_path: Path, rows: list[Any], wanted: str, message: str
) -> None:
    put_rows(tmp_path, "b.jsonl", rows)
    with pytest.raises(
        UserError, match=rf"^2 of 2 rows \(100\.0%\) cannot be used \(data\.max_dropped is 0\.05\){message}"
    ):
        prepare(local(format=wanted), tmp_path, tmp_path)
    assert [reject["row"] for reject in rejected(tmp_path)] == rows
    assert not (tmp_path / "data/prepared").exists()
    assert not (tmp_path / "reports").exists()


def test_all_rejects_of_all_files_are_written_in_one_run_and_the_first_are_named(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(12), {"question": "", "answer": "a"}, {"title": "a"}] * 5)
    put_rows(tmp_path, "b.jsonl", [7, *pairs(10, 100), {"messages": [{"role": "user", "content": "Hi"}]}])
    with pytest.raises(UserError) as caught:
        prepare(local(), tmp_path, tmp_path)
    message = str(caught.value)
    assert message.startswith(
        "12 of 82 rows (14.6%) cannot be used (data.max_dropped is 0.05): 5 empty message, 5 no known format, "
        "1 not an object, 1 no assistant turn. The first: data/raw/a.jsonl:13 empty message; data/raw/a.jsonl:14 "
    )
    assert "\n" not in message
    assert message.count("data/raw/") == 10
    places = [(reject["source"], reject["line"], reject["reason"]) for reject in rejected(tmp_path)]
    assert len(places) == 12
    assert places[0] == ("data/raw/a.jsonl", 13, "empty message")
    assert places[-1] == ("data/raw/b.jsonl", 12, "no assistant turn")
    assert rejected(tmp_path)[-2] == {"source": "data/raw/b.jsonl", "line": 1, "reason": "not an object", "row": 7}
    report = prepare(local(max_dropped=0.15), tmp_path, tmp_path)
    assert sum(sum(file["dropped"].values()) for file in report["files"]) == len(rejected(tmp_path)) == 12


def test_unreadable_lines_are_counted_and_do_not_end_the_file(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(100))
    with (tmp_path / "data/raw/a.jsonl").open("ab") as file:
        file.write(b'{"question": "cut\n{"question": "\xff", "answer": "b"}\n')
        file.write(json.dumps(pairs(1, 500)[0]).encode() + b"\n" + b"\0\0\n")
    report = prepare(local(), tmp_path, tmp_path)
    assert report["files"][0]["usable"] == 101
    assert report["files"][0]["dropped"] == {"not UTF-8": 1, "not valid JSON": 2}
    assert [reject["line"] for reject in rejected(tmp_path)] == [101, 102, 104]
    with pytest.raises(
        UserError, match=r"^3 lines cannot be read \(data\.max_bad_lines is 2\): 2 not valid JSON, 1 not UTF"
    ):
        prepare(local(max_bad_lines=2), tmp_path, tmp_path)


def test_rows_that_the_data_itself_sets_apart_are_rejects_that_do_not_count(tmp_path: Path) -> None:
    rows = [{**row, "weight": number % 2} for number, row in enumerate(pairs(20))]
    put_rows(tmp_path, "a.jsonl", rows)
    report = prepare(local(max_dropped=0, validation=1, test=1), tmp_path, tmp_path)
    assert report["files"][0]["usable"] == 10
    assert report["files"][0]["dropped"] == {"not to be learnt": 10}
    assert [reject["row"] for reject in rejected(tmp_path)] == rows[::2]
    put_rows(tmp_path, "a.jsonl", rows[::2])
    with pytest.raises(UserError, match=r"^no row is left .*: 10 not to be learnt"):
        prepare(local(), tmp_path, tmp_path)


def test_a_run_without_rejects_leaves_an_empty_file_of_them(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", ["text"])
    with pytest.raises(UserError):
        prepare(local(), tmp_path, tmp_path)
    put_rows(tmp_path, "a.jsonl", pairs(20))
    prepare(local(), tmp_path, tmp_path)
    assert rejected(tmp_path) == []


def test_an_empty_file_is_not_read_and_said(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(20))
    for name, content in (("b.jsonl", b""), ("c.json", b"[]"), ("d.csv", b"question,answer\n"), ("e.parquet", b"")):
        (tmp_path / "data/raw" / name).write_bytes(content)
    report = prepare(local(), tmp_path, tmp_path)
    assert report["not_read"] == {f"data/raw/{name}": "empty" for name in ("b.jsonl", "c.json", "d.csv", "e.parquet")}
    assert len(report["files"]) == 1
    (tmp_path / "data/raw/a.jsonl").write_bytes(b"\n")
    with pytest.raises(UserError, match=r"^data/raw/a\.jsonl, .* hold no row; put rows there"):
        prepare(local(), tmp_path, tmp_path)


def test_keys_that_had_no_part_are_counted_by_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "id": number, "source": None if number else "web"} for number, row in enumerate(pairs(20))]
    put_rows(tmp_path, "a.jsonl", rows)
    turns = [{"role": "user", "content": "Hi", "name": "Ann"}, {"role": "assistant", "content": "Yo", "weight": 1}]
    put_rows(tmp_path, "b.jsonl", [{"messages": turns, "prompt": "Hi"}])
    report = prepare(local(), tmp_path, tmp_path)
    assert [file["unused"] for file in report["files"]] == [{"id": 20, "source": 1}, {"name": 1, "prompt": 1}]
    assert "keys not used in data/raw/a.jsonl: id (20), source (1)" in capsys.readouterr().out
    assert PrepareReport.read(tmp_path / "reports/prepare.json").tree() == report


MEANINGFUL = [
    *({key: 3} for key in ("score", "rating", "Score", "label")),
    {"images": [{"name": "add"}]},
    *({key: "auto"} for key in ("tool_choice", "reasoning_content", "function_call", "audio", "video", "image")),
    {"choices": ["a", "b"]},
    {"rejected": "bad"},
]


@pytest.mark.parametrize("more", MEANINGFUL, ids=lambda more: next(iter(more)))
def test_a_key_that_changes_the_meaning_and_is_not_read_is_an_error_unless_it_is_ignored(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    (key,) = (name.lower() for name in more)
    put_rows(tmp_path, "a.jsonl", [*pairs(20), *({**row, **more} for row in pairs(7, 50))])
    expected = rf"^keys .* are not used: data/raw/a\.jsonl: {key} \(7 rows\);.* data\.ignore=\[id,{key}\] to read"
    with pytest.raises(UserError, match=expected):
        prepare(local(ignore=["id"]), tmp_path, tmp_path)
    report = prepare(local(ignore=[key]), tmp_path, tmp_path)
    assert report["files"][0]["unused"] == {key: 7}
    put_rows(tmp_path, "a.jsonl", [{**row, key: nothing} for row in pairs(20) for nothing in (None, "", [], "[]")])
    assert "unused" not in prepare(local(), tmp_path, tmp_path)["files"][0]


def test_a_key_of_a_turn_that_changes_the_meaning_is_an_error_too(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi", "images": ["a.png"]}, {"role": "assistant", "content": "Yo"}]
    put_rows(tmp_path, "a.jsonl", [*pairs(20), {"messages": turns}])
    with pytest.raises(UserError, match=r"data/raw/a\.jsonl: images \(1 row\); .* data\.ignore=\[images\]"):
        prepare(local(), tmp_path, tmp_path)
    assert prepare(local(ignore=["images"]), tmp_path, tmp_path)["files"][0]["usable"] == 21
    called = [turns[0], {**turns[1], "tool_calls": [{"function": {"name": "add"}}]}]
    put_rows(tmp_path, "a.jsonl", [*pairs(20), {"messages": called, "tools": "none but a text"}])
    report = prepare(local(ignore=["images", "tool_calls", "tools"]), tmp_path, tmp_path)
    assert report["files"][0]["unused"] == {"images": 1, "tool_calls": 1, "tools": 1}


def test_tools_calls_and_results_are_kept_and_make_other_conversations(tmp_path: Path) -> None:
    def row(number: int, tool: str) -> dict[str, Any]:
        call = {"id": "c1", "type": "function", "function": {"name": tool, "arguments": '{"n": 1}'}}
        turns = [
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": {"is": "one"}},
            {"role": "assistant", "content": "One."},
        ]
        return {"messages": turns, "tools": [{"name": tool}], "parallel_tool_calls": False}

    put_rows(tmp_path, "a.jsonl", [row(number, tool) for number in range(10) for tool in ("one", "other")] * 2)
    put_rows(tmp_path, "b.jsonl", pairs(10))
    report = prepare(local(), tmp_path, tmp_path)
    assert report["duplicates"] == 20
    assert [file["usable"] for file in report["files"]] == [40, 10]
    assert report["files"][0]["unused"] == {"parallel_tool_calls": 40}
    chats = [chat for part in splits_in(tmp_path / "data/prepared").values() for chat in part]
    tools, _, called, result, _ = next(chat for chat in chats if chat[0]["role"] == "tools")
    name = json.loads(tools["content"])[0]["function"]["name"]
    assert json.loads(called["tool_calls"])[0]["function"] == {"name": name, "arguments": {"n": 1}}
    assert (result["content"], result["tool_call_id"]) == ('{"is": "one"}', "c1")
    assert sum(chat[0]["role"] == "tools" for chat in chats) == 20
    asked = [{chat[1]["content"] for chat in part} for part in splits_in(tmp_path / "data/prepared").values()]
    assert len(set().union(*asked)) == sum(map(len, asked))  # the same question under other tools is on one side
    for name, part in splits_in(tmp_path / "data/prepared").items():
        assert split_report(part) == report["splits"][name]
    assert pq.read_schema(tmp_path / "data/prepared/train.parquet") == schema_of(
        {"role", "content", "tool_calls", "tool_call_id"}
    )
    put_rows(tmp_path, "a.jsonl", [{**row(number, "one"), "tool_choice": "auto"} for number in range(10)])
    with pytest.raises(UserError, match=r"tool_choice \(10 rows\)"):
        prepare(local(), tmp_path, tmp_path)


def test_preferences_that_are_set_apart_are_not_held_against_bounds_in_tokens(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(20), {"prompt": "Who?", "chosen": "Ann", "rejected": "Bob"}])
    clean = replace(NO_CLEANING, tokenizer=str(STARTER), min_tokens=2)
    report = prepare(local(clean=clean), tmp_path, tmp_path)
    assert report["files"][0]["preferences"] == 1
    assert report["files"][0]["usable"] == 20


def test_names_in_settings_that_no_row_has_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "Kunde", "content": "Wie?"}, {"role": "assistant", "content": "So."}]
    rows = [{"Dialog": [{**turns[0], "content": f"Wie {n}?"}, turns[1]], "score": 1} for n in range(20)]
    put_rows(tmp_path, "a.jsonl", rows)
    names = {"columns": {"Dialog": "messages", "Frge": "question"}, "roles": {"kunde": "user", "Berater": "assistant"}}
    report = prepare(local(ignore=["Score", "rating"], **names), tmp_path, tmp_path)
    assert report["not_met"] == ["data.columns.frge", "data.ignore.rating", "data.roles.berater"]
    assert "data.columns.frge: no row has it" in capsys.readouterr().out


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    rows = "".join(f"Frage {n};Antwort {n};{n}\n" for n in range(20))
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/a.csv").write_text("Frage;Antwort;Nr\n" + rows, encoding="utf-16")
    report = prepare(local(columns={"Frage": "question", "Antwort": "answer"}), tmp_path, tmp_path)
    assert (report["files"][0]["format"], report["files"][0]["usable"]) == ("pairs", 20)
    assert report["files"][0]["unused"] == {"nr": 20}


def test_rows_may_be_lists_of_turns(tmp_path: Path) -> None:
    rows = [[{"role": "user", "content": f"Ask {n}"}, {"role": "bot", "content": f"Say {n}"}] for n in range(20)]
    put_rows(tmp_path, "a.jsonl", rows)
    (tmp_path / "data/raw/b.json").write_text(json.dumps([[{"von": "user", "content": "Hi"}], *rows[:1]]))
    report = prepare(local(columns={"von": "role"}), tmp_path, tmp_path)
    assert [(file["format"], file["usable"]) for file in report["files"]] == [("messages", 20), ("messages", 1)]
    assert report["files"][1]["dropped"] == {"no assistant turn": 1}


def test_what_was_done_with_turns_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ("assistant", "Welcome"), ("user", "Hi"), ("user", "there"), ("assistant", "Yo")
    named = [dict(zip(("role", "content"), turn, strict=True)) for turn in said]
    opened = [{"messages": [named[0], {**named[1], "content": f"Hi {n}"}, named[3]]} for n in range(10)]
    put_rows(tmp_path, "a.jsonl", [*opened, {"messages": named}])
    report = prepare(local(opening="keep", repeated="merge"), tmp_path, tmp_path)
    assert report["files"][0]["reordered"] == {"opening kept, not learnt": 11, "repeated turns merged": 1}
    assert "turns in data/raw/a.jsonl: 11 opening kept, not learnt, 1 repeated turns" in capsys.readouterr().out
    assert PrepareReport.read(tmp_path / "reports/prepare.json").tree() == report
    for part in splits_in(tmp_path / "data/prepared").values():
        assert {(chat[0]["content"], chat[0]["weight"]) for chat in part} == {("Welcome", 0)}
    report = prepare(local(max_dropped=0.1), tmp_path, tmp_path)
    assert report["files"][0]["dropped"] == {"roles do not alternate": 1}
    assert report["files"][0]["reordered"] == {"opening dropped": 10}
    with pytest.raises(UserError, match="roles do not alternate"):
        prepare(local(), tmp_path, tmp_path)


def compared(count: int) -> list[dict[str, Any]]:
    judged = [{"prompt": f"Say {n}", "completion": f"said {n}", "label": n % 2 == 0} for n in range(count)]
    paired = [{"prompt": f"Ask {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(count)]
    return judged + paired


def test_preferences_are_set_apart_and_never_learnt_as_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*pairs(20), *compared(10), *compared(1)]
    put_rows(tmp_path, "a.jsonl", rows)
    report = prepare(local(), tmp_path, tmp_path)
    assert (report["files"][0]["usable"], report["files"][0]["preferences"]) == (20, 22)
    assert PrepareReport.read(tmp_path / "reports/prepare.json").tree() == report
    assert "preferences set apart: 22, in data/prepared/preferences.jsonl" in capsys.readouterr().out
    text = (tmp_path / "data/prepared/preferences.jsonl").read_text(encoding="utf-8")
    apart = [json.loads(line) for line in text.splitlines()]
    assert len(apart) == 20
    answer = [{"role": "assistant", "content": "good 3"}]
    assert [row["chosen"] for row in apart if row["messages"][0]["content"] == "Ask 3"] == [answer]
    learnt = json.dumps(splits_in(tmp_path / "data/prepared"))
    assert not any(word in learnt for word in ("said", "good", "bad", "Ask"))
    put_rows(tmp_path, "a.jsonl", rows[::-1])
    prepare(local(), tmp_path, tmp_path)
    assert (tmp_path / "data/prepared/preferences.jsonl").read_text(encoding="utf-8") == text


def test_the_good_answers_of_preferences_are_learnt_where_it_is_asked_for(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", compared(20))
    report = prepare(local(preferences="answers"), tmp_path, tmp_path)
    assert (report["files"][0]["format"], report["files"][0]["usable"]) == ("preferences", 30)
    assert report["files"][0]["dropped"] == {"judged as a bad answer": 10}
    answers = {row[-1]["content"] for part in splits_in(tmp_path / "data/prepared").values() for row in part}
    assert answers == {f"good {n}" for n in range(20)} | {f"said {n}" for n in range(0, 20, 2)}
    assert not (tmp_path / "data/prepared/preferences.jsonl").exists()
    assert len(rejected(tmp_path)) == 10


def test_preferences_may_be_dropped_and_are_counted(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(20), *compared(10)])
    report = prepare(local(preferences="drop"), tmp_path, tmp_path)
    assert report["files"][0]["dropped"] == {"a preference": 20}
    assert not (tmp_path / "data/prepared/preferences.jsonl").exists()


def test_a_set_of_preferences_alone_says_what_may_be_done(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", compared(10))
    expected = r"^all 20 usable rows are preferences, .* data\.preferences=answers to learn the good answers, or add"
    with pytest.raises(UserError, match=expected):
        prepare(local(), tmp_path, tmp_path)


def test_formats_are_told_row_by_row(tmp_path: Path) -> None:
    chats = [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": f"Yo {n}"}]} for n in range(5)
    ]
    asked = [{"question": None, "answer": None, "prompt": f"Ask {n}", "response": "said"} for n in range(5)]
    put_rows(tmp_path, "a.jsonl", [*pairs(120), *chats, *asked])
    report = prepare(local(), tmp_path, tmp_path)
    assert report["files"][0]["format"] == "sharegpt, pairs"
    assert report["files"][0]["usable"] == 130


def test_a_format_is_added_by_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(columns: Columns) -> Messages:
        front, back = columns["card"].split(" // ")
        return [{"role": "user", "content": front}, {"role": "assistant", "content": back}]

    put_rows(tmp_path, "a.jsonl", [{"Card": f"Front {n} // Back {n}"} for n in range(20)])
    put_rows(tmp_path, "b.jsonl", pairs(20))
    with pytest.raises(UserError, match=r"20 no known format"):
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
        prepare(local(max_dropped=0), tmp_path, tmp_path)


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
    put_rows(tmp_path, "b.jsonl", [7] * 60)
    with pytest.raises(UserError, match=r"^60 of 120 rows"):
        prepare(local(), tmp_path, tmp_path)
    assert (sha256(tmp_path / "data/prepared"), sha256(tmp_path / "reports")) == before


def test_the_closing_table_names_what_was_read_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(1200), {"question": "Why?"}, *pairs(2)])
    prepare(local(validation=60, test=60), tmp_path, tmp_path)
    printed = capsys.readouterr()
    for figure in ("a.jsonl", "pairs", "1,203", "1,202", "1 no known format", "dropped: 2", "train 1,080", "test 60"):
        assert figure in printed.out
    names = ("data/prepared", "data/forgetting", "data/rejected.jsonl", "reports/prepare.json")
    places = (tmp_path / name for name in names)
    assert printed.out.endswith(f"written: {', '.join(map(str, places))}\n")
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
    assert line.startswith(f"UserError: cannot write {disk}/data/")
    assert ": No space left on device; make room" in line


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


def test_a_topic_or_length_beyond_its_share_is_left_out_and_counted(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(60), *({"question": f"{n}?", "answer": "so " * 20} for n in range(40))])
    report = prepare(local(clean=replace(NO_CLEANING, length_share=0.3)), tmp_path, tmp_path)
    assert report["balanced"] == {"16 to 31 words": 10, **report["balanced"]}
    assert sum(split["rows"] for split in report["splits"].values()) == 100 - sum(report["balanced"].values())


def test_rows_nested_in_hundreds_are_rejects_or_read_and_never_end_the_run(tmp_path: Path) -> None:
    schema = '{"name":"f","parameters":{"type":"object","properties":DEEP}}'
    shapes = (
        '{"zz":DEEP}',
        '{"question":"x","answer":"a","x":DEEP}',
        '{"question":"y","answer":DEEP}',
        '{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"tools":[' + schema + "]}",
        '{"prompt":"q","chosen":"c","rejected":{"role":"assistant","content":DEEP}}',
    )
    nested = ['{"a":' * depth + "1" + "}" * depth for depth in (20, 300, 600, 850)]
    rows = [shape.replace("DEEP", deep) for deep in nested for shape in shapes]
    rows += [json.dumps({"question": "z", "answer": "a", "tools": schema.replace("DEEP", nested[-1])})]
    put_rows(tmp_path, "a.jsonl", pairs(30))
    (tmp_path / "data/raw/b.jsonl").write_text("\n".join(rows))
    report = prepare(local(max_dropped=1, validation=2, test=2), tmp_path, tmp_path)
    assert report["files"][1]["rows"] == len(rows)
    assert report["files"][1]["usable"] == 5
    assert report["files"][1]["dropped"]["nested too deeply"] == 4
    rejected = [json.loads(line) for line in (tmp_path / "data/rejected.jsonl").read_text().splitlines()]
    assert (rejected[0]["line"], rejected[0]["row"]) == (1, json.loads(rows[0]))


def test_names_of_keys_are_shown_whatever_they_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "[/b] [red]": 1, ":smile:": 1, "\ud800": 1} for row in pairs(30)]
    put_rows(tmp_path, "x[/i].jsonl", [*rows, {"question": "half \ud800", "answer": "b"}])
    report = prepare(local(validation=2, test=2), tmp_path, tmp_path)
    assert report["files"][0]["unused"] == {":smile:": 30, "?": 30, "[/b] [red]": 30}
    said = capsys.readouterr().out
    assert "data/raw/x[/i].jsonl: :smile: (30), ? (30), [/b] [red] (30)" in said
    show(local(), tmp_path)
    assert "half ?&#34;" in (tmp_path / "reports/data.html").read_text(encoding="utf-8")


def test_a_row_that_no_model_would_read_to_its_end_is_a_reject(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", [*pairs(30), {"question": "How long?", "answer": "word " * 2_000_000}])
    report = prepare(local(validation=2, test=2), tmp_path, tmp_path)
    assert (report["files"][0]["usable"], report["files"][0]["dropped"]) == (
        30,
        {"longer than 10 million characters": 1},
    )
