"""Sets of general texts: what is kept of them for measuring, and what is said of the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from raw_rows import local, put_rows

from common.errors import UserError
from pipeline.core.data_settings import SourceSettings
from pipeline.core.records import GeneralSets
from pipeline.data.general import read_general
from pipeline.data.prepared import require_general
from pipeline.stages.prepare import prepare

TEXT = "Rivers carry stones first and mud last, and drop what they cannot carry where the land is flat."
SETS = {"notes": SourceSettings(files=["notes/*"])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"question": f"What is the number {n} good for?", "answer": f"For {n} things."} for n in range(40)]
    put_rows(tmp_path, "own.jsonl", rows)
    return tmp_path


def put(folder: Path, *rows: Any) -> None:
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes/notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prepared(folder: Path, **changes: Any) -> dict[str, list[Any]]:
    sets = {"notes": replace(SETS["notes"], **changes)}
    prepare(local(files=["data/raw/*"], validation=4, test=4), folder, folder, sets)
    lines = (folder / "data/forgetting/notes.jsonl").read_text(encoding="utf-8").splitlines()
    return {"kept": [json.loads(line) for line in lines]}


def test_texts_and_chats_are_kept_beside_the_data(folder: Path) -> None:
    chat = [{"role": "user", "content": "Name a bird."}, {"role": "assistant", "content": "The wren."}]
    put(folder, {"text": TEXT}, {"messages": chat})
    kept = prepared(folder)["kept"]
    assert sorted(messages[0]["content"] for messages in kept) == ["Name a bird.", TEXT]


def test_what_is_trained_on_is_left_out_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, {"text": TEXT}, {"question": "What is the number 17 good for?", "answer": "For nothing."})
    put_rows(folder, "own.jsonl", [{"question": f"What is the number {n} good for?", "answer": "?"} for n in range(60)])
    kept = prepared(folder)["kept"]
    report = GeneralSets.read(folder / "data/forgetting/sets.json").sets["notes"]
    train = (folder / "data/prepared/train.parquet").exists()
    assert train
    assert report.kept + report.in_training == 2
    assert len(kept) == report.kept
    if report.in_training:
        assert "general set notes: 1 text (1 left out as trained on)" in capsys.readouterr().out


def test_a_text_that_a_training_row_holds_is_left_out(folder: Path) -> None:
    others = "Bread rises because yeast feeds on sugar and gives off gas that the dough holds."
    put(folder, {"text": TEXT}, {"text": others})
    rows = [{"question": f"Case {n}. Shorten: {TEXT} Use {n + 3} words.", "answer": f"Rivers {n}."} for n in range(40)]
    put_rows(folder, "own.jsonl", rows)
    prepare(local(files=["data/raw/*"], validation=4, test=4, leak_threshold=None), folder, folder, SETS)
    exact = GeneralSets.read(folder / "data/forgetting/sets.json").sets["notes"]
    assert (exact.kept, exact.in_training) == (2, 0)
    apart = [row | {"question": f"{n} {n * 7} {row['question']}"} for n, row in enumerate(rows)]
    put_rows(folder, "own.jsonl", [*apart, *({"question": f"{n}?", "answer": "!"} for n in range(60))])
    prepare(local(files=["data/raw/*"], validation=4, test=4), folder, folder, SETS)
    near = GeneralSets.read(folder / "data/forgetting/sets.json").sets["notes"]
    assert (near.kept, near.in_training) == (1, 1)


def test_a_cap_takes_so_many_texts_whatever_their_order(folder: Path) -> None:
    rows = [{"text": f"{TEXT} {n}"} for n in range(30)]
    put(folder, *rows)
    few = prepared(folder, cap=5)["kept"]
    put(folder, *rows[::-1])
    assert prepared(folder, cap=5)["kept"] == few
    assert len(few) == 5


def test_rows_that_are_no_text_are_counted_and_the_rest_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, {"text": TEXT}, {"odd": 1})
    assert len(prepared(folder)["kept"]) == 1
    assert "general set notes: 1 text (1 no known format)" in capsys.readouterr().out


def test_a_set_of_which_nothing_is_usable_or_there_is_an_error_by_its_name(folder: Path) -> None:
    put(folder, {"odd": 1})
    with pytest.raises(UserError, match=r"^evaluate.general.notes has no usable text: 1 no known format"):
        read_general(SETS, folder)
    put(folder, {"text": TEXT})
    with pytest.raises(UserError, match=r"^evaluate.general.notes: no data file matches gone.jsonl; correct it, or"):
        read_general({"notes": SourceSettings(files=["notes/notes.jsonl", "gone.jsonl"])}, folder)


def test_what_ships_is_found_from_another_folder_and_gives_way_to_ones_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    ships = {"notes": SourceSettings(files=["general/texts.jsonl"])}
    prepare(local(files=["data/raw/*"], validation=4, test=4), Path(), Path(), ships)
    require_general(ships)
    assert GeneralSets.read(Path("data/forgetting/sets.json")).sets["notes"].kept == 74
    (folder / "general").mkdir()
    (folder / "general/texts.jsonl").write_text(json.dumps({"text": TEXT}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"evaluate.general.notes differs"):
        require_general(ships)
    assert len(read_general(ships, Path())["notes"].texts) == 1


def test_keys_that_change_what_a_text_means_are_an_error_that_says_how_to_ignore_them(folder: Path) -> None:
    put(folder, {"question": "Name a bird.", "answer": "The wren.", "score": 1})
    with pytest.raises(UserError, match=r"evaluate.general.notes.ignore=\[score\]"):
        read_general(SETS, folder)
    assert len(read_general({"notes": replace(SETS["notes"], ignore=["score"])}, folder)["notes"].texts) == 1


def test_other_sets_than_were_prepared_are_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    put(folder, {"text": TEXT})
    require_general({})
    with pytest.raises(UserError, match=r"^data/forgetting/sets.json is missing; first run"):
        require_general(SETS)
    prepared(Path())
    require_general(SETS)
    with pytest.raises(UserError, match=r"evaluate.general.notes differs"):
        require_general({"notes": replace(SETS["notes"], cap=1)})
    with pytest.raises(UserError, match=r"evaluate.general.more differs"):
        require_general(SETS | {"more": SETS["notes"]})
    put(folder, {"text": f"{TEXT} And so on."})
    with pytest.raises(UserError, match=r"evaluate.general.notes differs"):
        require_general(SETS)
