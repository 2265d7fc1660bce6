"""Replay: how much is taken, and that nothing of what is measured is."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from raw_rows import local, put_rows, splits_in

from common.errors import UserError
from pipeline.core.data_settings import DataSettings, ReplaySettings, SourceSettings, validate
from pipeline.core.records import PrepareReport
from pipeline.data.prepared import require_prepared
from pipeline.stages.prepare import prepare

NOTES = {"files": ["notes/*"]}


def pairs(word: str, count: int) -> list[dict[str, str]]:
    return [{"question": f"{word} question number {n} of many?", "answer": f"{word} answer {n}"} for n in range(count)]


def texts(count: int) -> list[dict[str, str]]:
    return [{"text": f"The note with the number {n} says nothing else at all."} for n in range(count)]


def replaying(share: float, **changes: Any) -> DataSettings:
    replay = ReplaySettings(sources={"notes": SourceSettings(**(NOTES | changes))}, share=share)
    return local(files=["data/raw/*"], validation=10, test=10, leak_threshold=None, replay=replay)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put_rows(tmp_path, "own.jsonl", pairs("own", 100))
    put_rows(tmp_path, "../../notes/notes.jsonl", texts(50))
    return tmp_path


def is_text(messages: list[dict[str, str]]) -> bool:
    return messages[0]["role"] == "text"


def test_so_many_rows_are_replayed_that_they_are_the_share_of_train(folder: Path) -> None:
    report = prepare(replaying(0.2), folder, folder)
    splits = splits_in(folder / "data/prepared")
    assert len(splits["train"]) == 100
    assert sum(map(is_text, splits["train"])) == 20
    assert not any(map(is_text, splits["validation"] + splits["test"]))
    assert report["replay"].taken == report["replay"].wanted == 20
    sources = pq.read_table(folder / "data/prepared/train.parquet")["source"].to_pylist()
    assert sources.count("replay.notes") == 20


def test_replay_leaves_the_datas_own_rows_their_places_and_order(folder: Path) -> None:
    without = splits_of(folder, replaying(0))
    mixed = splits_of(folder, replaying(0.2))
    mixed["train"] = [messages for messages in mixed["train"] if not is_text(messages)]
    assert mixed == without


def test_replayed_rows_are_spread_over_train(folder: Path) -> None:
    train = splits_of(folder, replaying(0.2))["train"]
    places = [place for place, messages in enumerate(train) if is_text(messages)]
    assert min(places) < 25
    assert max(places) >= 75


def test_the_same_rows_are_replayed_whatever_the_order_of_the_file_and_more_with_a_larger_share(folder: Path) -> None:
    before = splits_of(folder, replaying(0.1))
    put_rows(folder, "../../notes/notes.jsonl", texts(50)[::-1])
    assert splits_of(folder, replaying(0.1)) == before
    few, more = (
        {said(row) for row in train} for train in (before["train"], splits_of(folder, replaying(0.3))["train"])
    )
    assert few < more


def test_where_there_are_too_few_rows_all_are_taken_and_it_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(replaying(0.5), folder, folder)
    report = PrepareReport.read(folder / "reports/prepare.json").replay
    assert report is not None
    assert (report.wanted, report.taken) == (80, 50)
    assert "replayed: 50 rows of 50 usable, of the 80 that the share comes to" in capsys.readouterr().out


def test_what_is_measured_is_never_replayed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = splits_of(folder, replaying(0))
    put_rows(folder, "../../notes/notes.jsonl", [*texts(30), *({"messages": row} for row in before["test"])])
    put_rows(folder, "../measured.jsonl", texts(10))
    sets = {"notes": SourceSettings(files=["data/measured.jsonl"])}
    report = prepare(replaying(0.9), folder, folder, sets)["replay"]
    train = splits_in(folder / "data/prepared")["train"]
    assert {said(row) for row in train if is_text(row)} == {row["text"] for row in texts(30)[10:]}
    assert not {said(row) for row in train} & {said(row) for row in before["test"]}
    assert (report.usable, report.taken, report.measured) == (40, 20, 20)
    assert "passed over since they are measured: 20" in capsys.readouterr().out


def test_a_conversation_that_says_a_measured_text_later_on_is_not_replayed(folder: Path) -> None:
    turns = ["Begin.", "One.", texts(1)[0]["text"], "Two."]
    chat = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(turns)]
    put_rows(folder, "../../notes/notes.jsonl", [{"messages": chat}, *texts(20)[10:]])
    put_rows(folder, "../measured.jsonl", texts(10))
    sets = {"notes": SourceSettings(files=["data/measured.jsonl"])}
    assert prepare(replaying(0.5), folder, folder, sets)["replay"].taken == 10
    assert len((folder / "data/forgetting/notes.jsonl").read_text(encoding="utf-8").splitlines()) == 10


def test_what_train_has_already_is_not_replayed(folder: Path) -> None:
    train = splits_of(folder, replaying(0))["train"]
    put_rows(folder, "../../notes/notes.jsonl", [*texts(5), texts(1)[0], *({"messages": row} for row in train[:7])])
    report = prepare(replaying(0.5), folder, folder)["replay"]
    assert (report.usable, report.repeated, report.taken) == (13, 8, 5)


def test_a_file_cannot_be_both_data_and_replayed(folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"data.sources. and data.replay.sources.notes|data and data.replay.sources.notes"
    ):
        prepare(replaying(0.2, files=["data/raw/own.jsonl"]), folder, folder)


def test_other_prepared_data_is_asked_for_with_another_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    prepare(replaying(0.2), Path(), Path())
    require_prepared(replaying(0.2))
    with pytest.raises(UserError, match=r"data.replay.share is 0.1 and was 0.2"):
        require_prepared(replaying(0.1))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"weight": 2}, "data.replay.sources.notes.weight is 2; it may be 1; data.replay.share says how much is taken"),
        ({"cap": 5}, "data.replay.sources.notes.cap is 5; it may be null; data.replay.share says how much is taken"),
        ({"test_files": ["a"]}, "data.replay.sources.notes.test_files is ['a']; it may be empty; name them in files"),
        ({"files": []}, "data.replay.sources.notes is []; it may be a source with files"),
        ({"format": "odd"}, "data.replay.sources.notes.format is 'odd'; it may be one of auto"),
    ],
)
def test_what_a_replayed_source_cannot_be_is_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        validate(replaying(0.2, **keys))
    assert str(raised.value).startswith(message)


def splits_of(folder: Path, settings: DataSettings) -> dict[str, list[Any]]:
    prepare(settings, folder, folder)
    return splits_in(folder / "data/prepared")


def said(messages: list[dict[str, str]]) -> str:
    return messages[0]["content"]
