"""Checkpoints: the same settings and data go on, any others never do, and two trainers never share a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from pipeline.compose import compose
from pipeline.config import load
from pipeline.errors import UserError
from pipeline.training.checkpoints import COMPLETE, MarkComplete, claimed, fingerprint, newest_complete

REPO = Path(__file__).parents[3]
CONFIG = load(compose(REPO / "conf"))
CLAIM = """
import sys, time
from pathlib import Path
from pipeline.errors import UserError
from pipeline.training.checkpoints import claimed
try:
    with claimed(Path(sys.argv[1]), {"mine": sys.argv[2]}):
        print("claimed", flush=True)
        time.sleep(float(sys.argv[2]))
except UserError as error:
    sys.exit(f"UserError: {error}")
"""


def name(model: Any = CONFIG.model, train: Any = CONFIG.train, data: str = "a", engine: str = "trl") -> str:
    return fingerprint(model, train, data, engine)[0]


def checkpoint(folder: Path, step: int, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_text("weights")
    if complete:
        (path / COMPLETE).write_text("{}")
    return path


@contextmanager
def trainer_in(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed the folder."""
    command = [sys.executable, "-c", CLAIM, str(folder), "600"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "claimed\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def claim(folder: Path) -> None:
    with claimed(folder, {"mine": "0"}):
        pass


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO)}


def may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = "mount -t tmpfs -o size=64k none /tmp"
    return subprocess.run(["unshare", "-rm", "sh", "-c", probe], capture_output=True, check=False).returncode == 0


def test_the_fingerprint_is_a_short_name_that_stays() -> None:
    assert name() == name()
    assert len(name()) == 16
    assert fingerprint(CONFIG.model, CONFIG.train, "a", "trl")[1]["data"] == "a"


@pytest.mark.parametrize(
    "change",
    [
        {"model": replace(CONFIG.model, path="elsewhere")},
        {"model": replace(CONFIG.model, revision="abc")},
        {"model": replace(CONFIG.model, chat_template="other.jinja")},
        {"train": replace(CONFIG.train, lr=1e-3)},
        {"train": replace(CONFIG.train, max_steps=501)},
        {"train": replace(CONFIG.train, seed=43)},
        {"train": replace(CONFIG.train, batch_size=16)},
        {"train": replace(CONFIG.train, max_length=128)},
        {"train": replace(CONFIG.train, lora=replace(CONFIG.train.lora, r=8))},
        {"data": "b"},
        {"engine": "unsloth"},
    ],
)
def test_the_fingerprint_changes_with_what_is_learnt(change: dict[str, Any]) -> None:
    assert name(**change) != name()


@pytest.mark.parametrize(
    "change",
    [
        {"stop_step": 10},
        {"save_steps": 7},
        {"save_total_limit": 9},
        {"eval_steps": 3},
        {"eval_batch_size": 1},
        {"logging_steps": 1},
    ],
)
def test_the_fingerprint_does_not_change_with_how_it_is_watched(change: dict[str, Any]) -> None:
    assert name(train=replace(CONFIG.train, **change)) == name()


def test_auto_and_the_engine_that_it_takes_are_one(tmp_path: Path) -> None:
    assert name(train=replace(CONFIG.train, engine="trl")) == name(train=replace(CONFIG.train, engine="auto"))


def test_the_newest_complete_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    assert newest_complete(tmp_path / "missing") is None
    for step in (5, 10, 100):
        checkpoint(tmp_path, step)
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-100"  # by number and not by name


def test_incomplete_checkpoints_are_set_aside_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10, complete=False)
    checkpoint(tmp_path, 15, complete=False)
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-5"
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-5",
        "incomplete-checkpoint-10",
        "incomplete-checkpoint-15",
    }
    assert capsys.readouterr().out.count("is incomplete; set aside as incomplete-checkpoint-1") == 2


def test_a_step_that_is_cut_off_twice_is_set_aside_twice(tmp_path: Path) -> None:
    for _ in range(2):
        checkpoint(tmp_path, 10, complete=False)
        assert newest_complete(tmp_path) is None
    assert not (tmp_path / "checkpoint-10").exists()


def test_a_checkpoint_is_marked_after_it_is_written(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 10, complete=False)
    state = TrainerState(global_step=10)
    MarkComplete().on_save(TrainingArguments(output_dir=str(tmp_path)), state, TrainerControl())
    assert json.loads((path / COMPLETE).read_text()) == {"step": 10}
    assert newest_complete(tmp_path) == path


def test_a_claimed_folder_names_the_settings_it_stands_for(tmp_path: Path) -> None:
    with claimed(tmp_path / "deep/abc", {"train": {"lr": 1e-3}}):
        assert json.loads((tmp_path / "deep/abc/settings.json").read_text()) == {"train": {"lr": 1e-3}}
    claim(tmp_path / "deep/abc")  # given back


def test_a_second_trainer_is_refused_in_one_line_until_the_first_is_gone(tmp_path: Path) -> None:
    with trainer_in(tmp_path) as first:
        with pytest.raises(UserError, match=r"^another process trains the same in .*; wait for it or") as raised:
            claim(tmp_path)
        assert "\n" not in str(raised.value)
        assert json.loads((tmp_path / "settings.json").read_text()) == {"mine": "600"}
        first.send_signal(signal.SIGKILL)
        first.wait()
        claim(tmp_path)  # a killed trainer leaves no lock behind


def test_a_file_in_the_way_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("no folder")
    with pytest.raises(UserError, match=r"^cannot keep checkpoints in .*root/abc: Not a directory; make") as raised:
        claim(tmp_path / "root/abc")
    assert str(raised.value).endswith("or set runtime.checkpoint_root")


@pytest.mark.skipif(not may_mount(), reason="a read-only disk needs `unshare -rm` and a mount")
def test_a_read_only_disk_ends_in_one_line(tmp_path: Path) -> None:
    script = f"""
        mount -t tmpfs -o ro none {tmp_path} || exit 99
        {sys.executable} -c "$1" {tmp_path}/abc 0
    """
    command = ["unshare", "-rm", "sh", "-c", script, "sh", CLAIM]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"UserError: cannot keep checkpoints in {tmp_path}/abc: Read-only file system; make")
