"""Rows that compare or judge answers and are learnt: split, masked, cleaned and counted as conversations are."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from raw_rows import SPLITS, local, put_rows, splits_in

from pipeline.core.data_settings import NO_CLEANING, SourceSettings
from pipeline.core.records import PrepareReport
from pipeline.stages.prepare import prepare

LEARN = {"preferences": "learn", "validation": 0.2, "test": 0.2}


def pair(n: int, chosen: str = "", rejected: str = "") -> dict[str, str]:
    return {"prompt": f"What is {n}?", "chosen": chosen or f"It is {n}.", "rejected": rejected or f"It is not {n}."}


def judgement(n: int, label: bool) -> dict[str, Any]:
    return {"prompt": f"Who is {n}?", "completion": f"He is {n}.", "label": label}


def answers(folder: Path, split: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / f"data/prepared/preferences/{split}.parquet").to_pylist()
    return rows


def prepared(root: Path, rows: list[Any], **changes: Any) -> PrepareReport:
    put_rows(root, "rows.jsonl", rows)
    prepare(local(**LEARN, **changes), root, root)
    return PrepareReport.read(root / "reports/prepare.json")


def test_pairs_of_a_prompt_are_on_one_side_with_the_better_answer_first(tmp_path: Path) -> None:
    rows = [pair(n % 10, f"Answer {n}.") for n in range(40)]
    report = prepared(tmp_path, rows)
    asked = {name: {row["messages"][0]["content"] for row in answers(tmp_path, name)} for name in SPLITS}
    assert sum(map(len, asked.values())) == len(set().union(*asked.values())) == 10
    assert all(asked.values())
    assert sum(report.preferences[name].pairs for name in SPLITS) == 40
    for name in SPLITS:
        found = answers(tmp_path, name)
        assert [row["good"] for row in found] == [True, False] * report.preferences[name].pairs
        assert [row["comparison"] for row in found] == [n // 2 for n in range(len(found))]


def test_conversations_beside_pairs_are_split_as_ever_and_none_of_an_answer_is_among_them(tmp_path: Path) -> None:
    chats = [{"question": f"Where is {n}?", "answer": f"At {n}."} for n in range(30)]
    report = prepared(tmp_path, [*map(pair, range(30)), *chats])
    spoken = [messages[-1]["content"] for rows in splits_in(tmp_path / "data/prepared").values() for messages in rows]
    assert sorted(spoken) == sorted(chat["answer"] for chat in chats)
    assert all(part.as_conversations == 0 and part.pairs for part in report.preferences.values())
    assert all(part.rows for part in report.splits.values())


@pytest.mark.parametrize("threshold", [None, 0.8])
def test_conversations_have_their_share_of_splits_that_pairs_bring(tmp_path: Path, threshold: float | None) -> None:
    for start, name in enumerate(SPLITS):
        put_rows(tmp_path, f"said/{name}.jsonl", [pair(100 * start + n) for n in range(12)])
    same = {"question": "What is 3?", "answer": "It is 3."}  # as a pair of train asks
    held_out = {"question": "What is 203?", "answer": "It is 203."}  # as one of test
    chats = [{"question": f"Where is {n * 7919} of them?", "answer": f"At {n}."} for n in range(50)]
    put_rows(tmp_path, "taught.jsonl", [*chats, same, held_out])
    sources = {
        "said": SourceSettings(files=["data/raw/said/*.jsonl"], preferences="learn"),
        "taught": SourceSettings(files=["data/raw/taught.jsonl"]),
    }
    settings = replace(local(**LEARN), files=[], sources=sources, leak_threshold=threshold)
    prepare(settings, tmp_path, tmp_path)
    report = PrepareReport.read(tmp_path / "reports/prepare.json")
    assert [report.preferences[name].pairs for name in SPLITS] == [12, 12, 12]
    assert all(part.as_conversations == 0 for part in report.preferences.values())
    asked = {name: [row[0]["content"] for row in rows] for name, rows in splits_in(tmp_path / "data/prepared").items()}
    assert sorted(chain(*asked.values())) == sorted([*(chat["question"] for chat in chats), same["question"]])
    assert all(3 <= len(asked[name]) <= 20 for name in ("validation", "test"))
    assert same["question"] in asked["train"]


def test_a_split_without_conversations_has_the_good_answers_and_never_a_bad_one(tmp_path: Path) -> None:
    report = prepared(tmp_path, [*map(pair, range(20)), *(judgement(n, n % 2 == 0) for n in range(20))])
    for name, rows in splits_in(tmp_path / "data/prepared").items():
        part = report.preferences[name]
        assert len(rows) == part.as_conversations == part.pairs + part.good
        good = [row["messages"] for row in answers(tmp_path, name) if row["good"]]
        assert rows == good
        assert part.bad  # of each kind some are in each split


def test_what_is_said_before_an_answer_is_not_learnt(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "1"}, {"from": "human", "value": "Two?"}]
    rows = [{"conversations": turns, "chosen": f"Two {n}", "rejected": f"Three {n}"} for n in range(3)]
    prepared(tmp_path, [*rows, *map(pair, range(20))])
    (earlier, *_) = [row["messages"] for name in SPLITS for row in answers(tmp_path, name) if len(row["messages"]) == 4]
    assert [message["weight"] for message in earlier] == [1, 0, 1, 1]


def test_personal_data_is_masked_and_rules_look_at_good_answers(tmp_path: Path) -> None:
    clean = replace(NO_CLEANING, mask=["email"], min_answer_words=2)
    rows = [pair(n, f"Ask {n} at a@example.org.", f"No. b@example.org {n}") for n in range(20)]
    report = prepared(tmp_path, [*rows, pair(99, "Yes", "It is long enough."), judgement(5, False)], clean=clean)
    texts = [message["content"] for name in SPLITS for row in answers(tmp_path, name) for message in row["messages"]]
    assert not any("example.org" in text for text in texts)
    assert sum("<EMAIL>" in text for text in texts) == report.masked["email"] == 40
    assert report.cleaning["short"].rows == 1  # the chosen answer of one word; what is bad may be short
    assert sum(part.bad for part in report.preferences.values()) == 1


def test_neither_order_nor_repetition_changes_what_is_written(tmp_path: Path) -> None:
    rows = [*map(pair, range(20)), *(judgement(n, n % 2 == 0) for n in range(20)), judgement(0, False)]
    for place, given in (("one", rows), ("other", [*rows[::-1], rows[3]])):
        prepared(tmp_path / place, given)
    for name in SPLITS:
        assert answers(tmp_path / "one", name) == answers(tmp_path / "other", name)
