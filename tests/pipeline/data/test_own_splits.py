"""Splits that a data set brings: told by name or by key, and kept apart from what is trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
from raw_rows import local, put_rows, splits_in

from common.errors import UserError
from pipeline.core.formats import Messages
from pipeline.data.own_splits import split_in_name, told_apart
from pipeline.data.sources import Source
from pipeline.stages.prepare import prepare


def pairs(word: str, count: int) -> list[dict[str, str]]:
    return [{"question": f"{word} question {n}?", "answer": f"{word} answer {n}"} for n in range(count)]


def questions(rows: list[Messages]) -> set[str]:
    return {messages[0]["content"] for messages in rows}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/raw/train.jsonl", "train"),
        ("raw/Training.json", "train"),
        ("raw/valid.jsonl", "validation"),
        ("raw/val.csv", "validation"),
        ("raw/dev.jsonl.gz", "validation"),
        ("raw/eval.parquet", "validation"),
        ("raw/testing.tsv", "test"),
        ("raw/train-00000-of-00002.parquet", "train"),
        ("raw/test_sft-00000-of-00001-3fa.parquet", "test"),
        ("raw/gsm8k.test.jsonl", "test"),
        ("raw/my_own_validation.jsonl", "validation"),
        ("raw/test/part-1.jsonl", "test"),
        ("raw/test/train.jsonl", "train"),
        ("raw/test/2024/part-1.jsonl", "test"),
        ("/sets/test/part-1.jsonl", "test"),
        ("/home/dev/sets/faq.jsonl", None),
        ("raw/train_test.jsonl", None),
        ("raw/contest.jsonl", None),
        ("raw/chats.jsonl", None),
    ],
)
def test_a_split_is_told_by_the_name_of_a_file_or_its_folder(name: str, split: str | None) -> None:
    assert split_in_name(name) == split


def test_files_named_for_splits_are_these_splits(tmp_path: Path) -> None:
    for name, count in (("train", 60), ("valid", 7), ("test", 9)):
        put_rows(tmp_path, f"{name}.jsonl", pairs(name, count))
    report = prepare(local(), tmp_path, tmp_path)
    assert report["own_splits"] == {"validation": ["data/raw/valid.jsonl"], "test": ["data/raw/test.jsonl"]}
    found = splits_in(tmp_path / "data/prepared")
    assert {name: len(rows) for name, rows in found.items()} == {"train": 60, "validation": 7, "test": 9}
    assert questions(found["test"]) == {f"test question {n}?" for n in range(9)}


@pytest.mark.parametrize(
    ("names", "own_splits", "splits"),
    [
        (["train", "validation", "test"], True, ["train", "validation", "test"]),
        (["train_sft", "test_sft"], True, ["train", "test"]),
        (["train", "test"], False, [None, None]),
        (["test"], True, [None]),  # which is as good as any other name
        (["train[:10%]", "extra"], True, [None, None]),
    ],
)
def test_splits_of_the_hub_are_told_by_their_names(
    names: list[str], own_splits: bool, splits: list[str | None]
) -> None:
    settings = local(source="hub", path="owner/chats", split=names, own_splits=own_splits)
    sources = [Source(f"owner/chats:{name}", [], split=name) for name in names]
    assert [source.split for source in told_apart(sources, settings, Path())] == splits


def test_a_split_that_nobody_brings_is_taken_from_train(tmp_path: Path) -> None:
    put_rows(tmp_path, "train.jsonl", pairs("train", 60))
    put_rows(tmp_path, "more.jsonl", pairs("more", 40))
    put_rows(tmp_path, "test.jsonl", pairs("test", 9))
    report = prepare(local(validation=10), tmp_path, tmp_path)
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 90, "validation": 10, "test": 9}


@pytest.mark.parametrize("changes", [{"own_splits": False}, {}])
def test_they_are_one_set_where_asked_or_where_none_is_for_training(tmp_path: Path, changes: dict[str, Any]) -> None:
    put_rows(tmp_path, "train.jsonl" if changes else "eval.jsonl", pairs("train", 60))
    put_rows(tmp_path, "test.jsonl", pairs("test", 40))
    report = prepare(local(validation=10, test=10, **changes), tmp_path, tmp_path)
    assert report["own_splits"] == {}
    assert report["splits"]["train"]["rows"] == 80


def test_a_test_file_is_the_test_beside_a_file_of_any_name(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 60))
    put_rows(tmp_path, "test.jsonl", pairs("test", 9))
    report = prepare(local(validation=10), tmp_path, tmp_path)
    assert report["own_splits"] == {"test": ["data/raw/test.jsonl"]}
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 50, "validation": 10, "test": 9}


def test_keys_name_the_files_of_a_split_whatever_they_are_called(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs("a", 60))
    put_rows(tmp_path, "../elsewhere/train.jsonl", pairs("b", 8))
    put_rows(tmp_path, "c.jsonl", pairs("c", 9))
    settings = local(validation_files=["data/elsewhere/*.jsonl"], test_files=["data/raw/c.jsonl"], validation=0, test=0)
    report = prepare(settings, tmp_path, tmp_path)
    assert report["own_splits"] == {"validation": ["data/elsewhere/train.jsonl"], "test": ["data/raw/c.jsonl"]}
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 60, "validation": 8, "test": 9}


def test_max_rows_is_of_what_is_trained_on(tmp_path: Path) -> None:
    for name, count in (("train", 60), ("valid", 7), ("test", 9)):
        put_rows(tmp_path, f"{name}.jsonl", pairs(name, count))
    report = prepare(local(max_rows=20), tmp_path, tmp_path)
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 20, "validation": 7, "test": 9}


def test_rows_of_train_that_know_a_prompt_or_an_exchange_of_another_split_are_left_out(tmp_path: Path) -> None:
    shared = [
        {"question": "TEST question 0", "answer": "another"},
        {"messages": [
            {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": "valid question 1"}, {"role": "assistant", "content": "Valid answer 1."},
        ]},
    ]  # fmt: skip
    put_rows(tmp_path, "train.jsonl", [*pairs("train", 60), shared[0]])
    put_rows(tmp_path, "train-2.jsonl", [shared[1]])
    put_rows(tmp_path, "valid.jsonl", pairs("valid", 7))
    put_rows(tmp_path, "test.jsonl", pairs("test", 9))
    report = prepare(local(), tmp_path, tmp_path)
    assert report["leaks"] == {"validation": 1, "test": 1}
    found = splits_in(tmp_path / "data/prepared")
    assert questions(found["train"]) == {f"train question {n}?" for n in range(60)}
    assert (len(found["validation"]), len(found["test"])) == (7, 9)


def test_none_of_several_files_of_questions_is_trained_on(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs("a", 60))
    for name in ("exam", "test"):
        put_rows(tmp_path, f"{name}.jsonl", [{"question": f"{name} {n}?", "answer": f"#### {n}"} for n in range(9)])
    names = ["data/raw/exam.jsonl", "data/raw/test.jsonl"]
    report = prepare(local(questions=names, answer_after="####"), tmp_path, tmp_path)
    assert report["not_read"] == dict.fromkeys(names, "it is data.questions")
    assert report["questions"]["kept"] == 18


def test_the_file_of_the_questions_is_not_trained_on(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs("a", 60))
    put_rows(tmp_path, "exam.jsonl", [{"question": f"Exam {n}?", "answer": f"#### {n}"} for n in range(9)])
    settings = local(questions="data/raw/../raw/exam.jsonl", answer_after="####")
    report = prepare(settings, tmp_path, tmp_path)
    assert report["not_read"] == {"data/raw/exam.jsonl": "it is data.questions"}
    assert report["questions"]["kept"] == 9
    assert sum(part["rows"] for part in report["splits"].values()) == 60


def test_rows_of_validation_that_stand_in_test_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_rows(tmp_path, "train.jsonl", pairs("train", 60))
    put_rows(tmp_path, "valid.jsonl", [*pairs("valid", 5), *pairs("TEST", 2)])
    put_rows(tmp_path, "test.jsonl", pairs("test", 9))
    report = prepare(local(), tmp_path, tmp_path)
    assert report["shared_by_own_splits"] == 2
    assert {name: part["rows"] for name, part in report["splits"].items()} == {"train": 60, "validation": 5, "test": 9}
    assert "left out of validation, since they are linked to test: 2 rows" in capsys.readouterr().out


def test_a_validation_that_is_test_again_is_refused(tmp_path: Path) -> None:
    put_rows(tmp_path, "train.jsonl", pairs("train", 60))
    for name in ("valid", "test"):
        put_rows(tmp_path, f"{name}.jsonl", pairs("test", 9))
    with pytest.raises(UserError, match=r"^each row of the set's own validation split shares a prompt"):
        prepare(local(), tmp_path, tmp_path)


def test_a_json_that_lists_no_split_to_train_on_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/a.json").write_text(json.dumps({"test": pairs("test", 40)}))
    with pytest.raises(UserError, match=r"^every usable row is of the set's own test split, and none is left to train"):
        prepare(local(), tmp_path, tmp_path)
    assert prepare(local(own_splits=False), tmp_path, tmp_path)["splits"]["train"]["rows"] == 36


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        (["a"], {"test": 0}, r"data\.test is 0 and no file brings a test split, which later stages need"),
        (["a"], {"test_files": ["b/*"]}, r"data\.test_files has b/\*, which matches no file"),
        (["a"], {"test_files": ["data/raw/a.jsonl"]}, "nothing is left to train on: of 1 file each is"),
        (
            ["a", "b"],
            {"test_files": ["data/raw/b*"], "validation_files": ["data/raw/b.*"]},
            r"data\.validation_files and data\.test_files both match data/raw/b\.jsonl",
        ),
        (["train", "test"], {}, r"each of the 20 rows to train on shares a prompt or an exchange with the set's own"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, files: list[str], changes: dict[str, Any], message: str) -> None:
    for name in files:
        put_rows(tmp_path, f"{name}.jsonl", pairs("x", 20))
    with pytest.raises(UserError, match=message):
        prepare(local(**changes), tmp_path, tmp_path)
