"""Several sources in one set: each read by its own settings, weighed, capped and counted."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from raw_rows import local, put_rows, splits_in

from common.errors import UserError
from pipeline.core.data_settings import DataSettings, SourceSettings
from pipeline.stages.prepare import prepare


def pairs(word: str, count: int, question: str = "question", answer: str = "answer") -> list[dict[str, str]]:
    return [{question: f"{word} question {n}?", answer: f"{word} answer {n}"} for n in range(count)]


def mix(**sources: dict[str, Any]) -> DataSettings:
    each = {name: SourceSettings(**{"files": [f"data/raw/{name}*"], **keys}) for name, keys in sources.items()}
    return local(files=[], validation=10, test=10, sources=each)


def sources_in(folder: Path, split: str) -> list[str]:
    table: list[str] = pq.read_table(folder / f"data/prepared/{split}.parquet")["source"].to_pylist()
    return table


def test_each_source_has_its_own_names_of_keys_and_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 40, "Frage", "Antwort"))
    put_rows(tmp_path, "other.jsonl", [row | {"score": 3} for row in pairs("other", 60)])
    settings = mix(faq={"columns": {"Frage": "question", "Antwort": "answer"}}, other={"ignore": ["score"]})
    report = prepare(settings, tmp_path, tmp_path)
    assert [(file["file"], file["source"], file["usable"]) for file in report["files"]] == [
        ("data/raw/faq.jsonl", "faq", 40),
        ("data/raw/other.jsonl", "other", 60),
    ]
    for split in ("train", "validation", "test"):
        sources = sources_in(tmp_path, split)
        words = [messages[0]["content"].split()[0] for messages in splits_in(tmp_path / "data/prepared")[split]]
        assert sources == words
        assert {name: part["splits"][split] for name, part in report["sources"].items()} == {
            name: sources.count(name) for name in ("faq", "other")
        }
    assert "source faq: train " in capsys.readouterr().out


def test_a_key_that_one_source_ignores_is_an_error_in_another(tmp_path: Path) -> None:
    for name in ("faq", "other"):
        put_rows(tmp_path, f"{name}.jsonl", [row | {"score": 3} for row in pairs(name, 40)])
    with pytest.raises(UserError, match=r"raw/other.jsonl: score \(40 rows\).*data.sources.other.ignore=\[score\]"):
        prepare(mix(faq={"ignore": ["score"]}, other={}), tmp_path, tmp_path)


def test_weight_and_cap_are_of_train_and_change_no_other_split(tmp_path: Path) -> None:
    for name, count in (("faq", 50), ("other", 100), ("more", 100)):
        put_rows(tmp_path, f"{name}.jsonl", pairs(name, count))
    plain = prepare(mix(faq={}, other={}, more={"cap": 30}), tmp_path, tmp_path)
    others = splits_in(tmp_path / "data/prepared")
    assert plain["sources"]["more"]["sampled_out"] == 70
    report = prepare(mix(faq={"weight": 2.5}, other={"weight": 0.5}, more={"cap": 30}), tmp_path, tmp_path)
    found = splits_in(tmp_path / "data/prepared")
    assert (found["validation"], found["test"]) == (others["validation"], others["test"])
    before, after = (
        {name: part["splits"]["train"] for name, part in one["sources"].items()} for one in (plain, report)
    )
    assert after == {
        "faq": round(2.5 * before["faq"]), "other": round(0.5 * before["other"]), "more": before["more"],
    }  # fmt: skip
    assert report["added_by_weight"] == len(found["train"]) - len(others["train"])
    texts = [messages[0]["content"] for messages in found["train"]]
    assert {texts.count(text) for text in texts if text.startswith("faq")} == {2, 3}
    assert any(texts[place] != texts[place + 1] for place in range(20))  # copies are apart


def test_one_set_without_names_has_no_column_of_them(tmp_path: Path) -> None:
    put_rows(tmp_path, "a.jsonl", pairs("a", 40))
    report = prepare(local(), tmp_path, tmp_path)
    assert report["sources"] == {}
    assert pq.read_schema(tmp_path / "data/prepared/train.parquet").names == ["messages"]


def test_a_source_may_bring_a_split_of_its_own_and_nothing_else(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 50))
    put_rows(tmp_path, "exam.jsonl", pairs("exam", 7))
    settings = mix(faq={}, exam={"files": [], "test_files": ["data/raw/exam.jsonl"]})
    report = prepare(settings, tmp_path, tmp_path)
    assert report["own_splits"] == {"test": ["data/raw/exam.jsonl"]}
    assert report["sources"]["exam"]["splits"] == {"train": 0, "validation": 0, "test": 7}


def test_a_file_that_two_sources_read_is_refused(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 50))
    with pytest.raises(UserError, match=r"data.sources.faq and data.sources.all both read data/raw/faq.jsonl"):
        prepare(mix(faq={}, all={"files": ["data/raw/**/*"]}), tmp_path, tmp_path)
