"""Several sources in one set: each read by its own settings, weighed, capped and counted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dataset_hub import COMMIT
from raw_rows import local, put_rows, splits_in

from common.errors import UserError
from pipeline.core.data_settings import DataSettings, SourceSettings
from pipeline.core.records import PrepareReport
from pipeline.stages.prepare import prepare

REPO = Path(__file__).parents[3]


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


def test_what_is_done_with_preferences_is_each_sources_own_and_they_say_whose_they_are(tmp_path: Path) -> None:
    for name in ("faq", "other"):
        rows = [{"prompt": f"{name} {n}?", "chosen": "yes", "rejected": "no"} for n in range(3)]
        put_rows(tmp_path, f"{name}.jsonl", [*rows, *pairs(name, 40)])
    report = prepare(mix(faq={"preferences": "answers"}, other={}), tmp_path, tmp_path)
    assert [file["usable"] for file in report["files"]] == [43, 40]
    lines = (tmp_path / "data/prepared/preferences.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["other"] * 3


@pytest.mark.parametrize("order", [["faq", "other"], ["other", "faq"]])
def test_a_row_that_two_sources_have_is_the_first_ones(tmp_path: Path, order: list[str]) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("the same", 40))
    put_rows(tmp_path, "other.jsonl", [*pairs("the same", 40), *pairs("other", 40)])
    report = prepare(mix(**{name: {} for name in order}), tmp_path, tmp_path)
    kept = {name: sum(one["splits"].values()) for name, one in report["sources"].items()}
    assert kept == ({"faq": 40, "other": 40} if order[0] == "faq" else {"faq": 0, "other": 80})


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


def test_a_source_that_is_called_test_is_never_trained_on_beside_others(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 50))
    put_rows(tmp_path, "exam/test.jsonl", pairs("exam", 7))
    report = prepare(mix(faq={}, exam={"files": ["data/raw/exam/*"]}), tmp_path, tmp_path)
    assert report["own_splits"] == {"test": ["data/raw/exam/test.jsonl"]}
    sources = {"exam": {"files": ["data/raw/exam/*"]}, "more": {"files": [], "test_files": ["data/raw/faq*"]}}
    with pytest.raises(UserError, match=r"^nothing is left to train on"):
        prepare(mix(**sources), tmp_path, tmp_path)


def test_a_source_that_is_null_is_left_out(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 50))
    settings = mix(faq={})
    report = prepare(replace(settings, sources={**(settings.sources or {}), "other": None}), tmp_path, tmp_path)
    assert list(report["sources"]) == ["faq"]


def test_weights_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 50))
    with pytest.raises(UserError, match=r"^the weights of data.sources leave none of 30 rows to train on; raise them$"):
        prepare(mix(faq={"weight": 0.001}), tmp_path, tmp_path)


def test_a_file_that_two_sources_read_is_refused(tmp_path: Path) -> None:
    put_rows(tmp_path, "faq.jsonl", pairs("faq", 50))
    with pytest.raises(UserError, match=r"data.sources.faq and data.sources.all both read data/raw/faq.jsonl"):
        prepare(mix(faq={}, all={"files": ["data/raw/**/*"]}), tmp_path, tmp_path)


RUN = """
import sys
from pathlib import Path
from pipeline.core.data_settings import DataSettings, SourceSettings
from pipeline.stages.prepare import prepare
sources = {
    "own": SourceSettings(files=["data/raw/*"]),
    "hub": SourceSettings(path="owner/splits", split=None, streaming=sys.argv[2] == "True", cap=20),
}
root = Path(sys.argv[1])
prepare(DataSettings("mix", "files", sources=sources), root, root)
"""


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_dataset_and_files_are_mixed_and_its_splits_stay(tmp_path: Path, hub: str, streaming: bool) -> None:
    put_rows(tmp_path, "own.jsonl", pairs("own", 40))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path), str(streaming)],
        env={"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path), "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = PrepareReport.read(tmp_path / "reports/prepare.json")
    assert report.own_splits == {"validation": ("owner/splits:validation",), "test": ("owner/splits:test",)}
    assert report.sources["hub"].splits == {"train": 20, "validation": 4, "test": 5}
    assert (report.sources["hub"].revision, report.sources["own"].revision) == (COMMIT, None)
    assert report.sources["own"].splits == {"train": 40, "validation": 0, "test": 0}
    answers = {messages[1]["content"] for messages in splits_in(tmp_path / "data/prepared")["test"]}
    assert answers == {"1", "2", "3", "4", "5"}
