"""Files that DVC was killed over, and what DVC makes of them afterwards."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.lock import Lock
from dvc.schema import COMPILED_LOCKFILE_SCHEMA

from pipeline import cli
from pipeline.core import dvc_files

RWLOCK = Path(".dvc/tmp/rwlock")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what DVC keeps of its own, in one of its stages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "a")
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    return tmp_path


def lock(*stages: str) -> str:
    entry = {"path": "a", "hash": "md5", "md5": "0" * 32, "size": 5}
    stage = {"cmd": "exec a", "deps": [entry, entry], "params": {"params.yaml": {"a": 1}}, "outs": [entry]}
    return yaml.safe_dump({"schema": "2.0", "stages": dict.fromkeys(stages, stage)}, sort_keys=False)


def test_a_lock_that_was_cut_short_anywhere_is_what_it_was_when_a_stage_began(place: Path) -> None:
    """DVC writes it in place: a kill at any byte leaves the beginning of another one."""
    kept, whole = lock("a", "b"), lock("a", "b", "c")
    (place / "dvc.lock").write_text(kept)
    dvc_files.keep()
    readable = 0
    for length in range(0, len(whole), 7):
        (place / "dvc.lock").write_text(whole[:length])
        dvc_files.mend()
        text = (place / "dvc.lock").read_text()
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text))
        assert text in (kept, whole[:length])
        readable += text != kept
    assert 0 < readable < len(whole) / 14


def test_a_lock_of_which_nothing_was_kept_is_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dvc_files.keep()  # of a first run, in which there is none
    (place / "dvc.lock").write_text("")
    dvc_files.mend()
    assert not (place / "dvc.lock").exists()
    assert capsys.readouterr().out.startswith("dvc.lock was cut short, as by a kill of DVC: it is removed")


@pytest.mark.parametrize("text", ["", '{"write": {"a'])
def test_a_list_of_processes_that_was_cut_short_is_removed(text: str) -> None:
    RWLOCK.write_text(text)
    dvc_files.mend()
    assert not RWLOCK.exists()


def test_what_git_could_not_merge_is_its_users_to_mend(place: Path) -> None:
    (place / "dvc.lock").write_text(lock("a"))
    dvc_files.keep()
    both = f"<<<<<<< HEAD\n{lock('a', 'b')}=======\n{lock('a')}>>>>>>> other\n"
    (place / "dvc.lock").write_text(both)
    dvc_files.mend()
    assert (place / "dvc.lock").read_text() == both


def test_what_dvc_writes_at_this_moment_is_left_to_it(place: Path) -> None:
    (place / "dvc.lock").write_text("schema")
    RWLOCK.write_text("{")
    with Lock(".dvc/tmp/lock"):
        dvc_files.mend()
    assert ((place / "dvc.lock").read_text(), RWLOCK.read_text()) == ("schema", "{")


def test_after_a_kill_repro_runs_no_stage_again(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep = "python -c 'from pipeline.core import dvc_files; dvc_files.keep()'"
    stages = {name: {"cmd": f"{keep} && echo {name} >> ran && cp {old} {name}", "deps": [old], "outs": [name]}
              for name, old in (("prepare", "none"), ("train", "prepare"))}  # fmt: skip
    (place / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (place / "none").write_text("something")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q", "-f"]):
        subprocess.run(command, check=True)
    assert cli.run(["repro", "train"]) == 0
    before, _, _ = (place / "dvc.lock").read_text().partition("  train:")
    (place / "dvc.lock").write_text(f"{before}  tra")
    assert cli.run(["repro", "train"]) == 0
    assert list(yaml.safe_load((place / "dvc.lock").read_text())["stages"]) == ["prepare", "train"]
    assert (place / "ran").read_text() == "prepare\ntrain\n"
    assert capfd.readouterr().out.count("dvc.lock was cut short") == 1
