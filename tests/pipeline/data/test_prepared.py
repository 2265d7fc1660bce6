"""Prepared data that is not what a configuration asks for, and what does not count as other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from pipeline.core.data_settings import NO_CLEANING, DataSettings
from pipeline.data.prepared import TO_PREPARE, require_prepared
from pipeline.stages.prepare import prepare

REPO = Path(__file__).parents[3]
SETTINGS = DataSettings("mine", "files", ["raw/*.jsonl"], validation=4, test=4, questions="questions.jsonl")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with 40 prepared conversations, of two files."""
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text("".join(lines[:20]))
    (tmp_path / "raw/b.jsonl").write_text("".join(lines[20:40]))
    shutil.copy(REPO / "starter/questions.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    prepare(SETTINGS, Path(), Path())
    return tmp_path


def refused(settings: DataSettings) -> str:
    with pytest.raises(UserError) as raised:
        require_prepared(settings)
    return str(raised.value)


def test_what_is_asked_for_is_accepted(prepared: Path) -> None:
    require_prepared(SETTINGS)
    require_prepared(replace(SETTINGS, validation=4.0))


def test_other_settings_are_refused_by_name_and_with_the_command(prepared: Path) -> None:
    assert refused(replace(SETTINGS, name="other", max_rows=7)) == (
        "data/prepared is not what the configuration asks for: data.max_rows is 7 and was None, data.name is 'other' "
        "and was 'mine'; run `dvc repro prepare`, or `tunesmith prepare` with the same overrides"
    )
    assert "data.source is 'hub' and was 'files'" in refused(replace(SETTINGS, source="hub", path="a/b"))


@pytest.mark.parametrize("name", ["raw/b.jsonl", "questions.jsonl"])
def test_a_file_that_has_changed_is_refused(prepared: Path, name: str) -> None:
    with (prepared / name).open("a") as file:
        file.write("\n")
    assert f": {name} has changed, come or gone; run " in refused(SETTINGS)


def test_files_that_have_come_or_gone_are_refused(prepared: Path) -> None:
    shutil.copy("raw/a.jsonl", "raw/c.jsonl")
    assert ": raw/c.jsonl has changed, come or gone; run " in refused(SETTINGS)
    (prepared / "raw/c.jsonl").unlink()
    (prepared / "raw/a.jsonl").unlink()
    assert ": raw/a.jsonl has changed, come or gone; run " in refused(SETTINGS)


def test_where_no_file_is_here_the_settings_alone_count(prepared: Path) -> None:
    shutil.rmtree("raw")
    (prepared / "questions.jsonl").unlink()
    require_prepared(SETTINGS)
    assert "data.seed is 1 and was 0" in refused(replace(SETTINGS, seed=1))


def test_without_prepared_data_the_stage_to_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(SETTINGS) == f"data/prepared/made_from.json is missing; first {TO_PREPARE}"


@pytest.mark.parametrize("text", ["{half", "", "[]", "null", '{"settings": {}}', '{"settings": [], "files": {}}'])
def test_a_damaged_note_of_what_was_prepared_ends_in_one_line(prepared: Path, text: str) -> None:
    (prepared / "data/prepared/made_from.json").write_text(text)
    assert refused(SETTINGS) == f"data/prepared/made_from.json is damaged; {TO_PREPARE}"


def test_it_is_the_same_on_every_machine(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = shutil.copytree(prepared, tmp_path_factory.mktemp("elsewhere") / "deeper")
    prepare(SETTINGS, elsewhere, elsewhere)
    path = Path("data/prepared/made_from.json")
    assert (elsewhere / path).read_bytes() == path.read_bytes()
    assert set(json.loads(path.read_text())["files"]) == {"raw/a.jsonl", "raw/b.jsonl", "questions.jsonl"}


def test_another_tokenizer_that_counted_its_tokens_is_refused_by_name(tmp_path: Path, prepared: Path) -> None:
    shutil.copytree(
        REPO / "starter/models/starter-s", tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")
    )
    settings = replace(SETTINGS, clean=replace(NO_CLEANING, max_tokens=500, tokenizer="model"))
    prepare(settings, Path(), Path())
    require_prepared(settings)
    with (tmp_path / "model/tokenizer_config.json").open("a") as file:
        file.write(" ")
    assert "model/tokenizer_config.json has changed, come or gone" in refused(settings)
