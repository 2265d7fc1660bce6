"""Checkpoints: the same settings and data go on, any others never do, and two trainers never share a folder."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from mounts import may_mount

from common.errors import UserError
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.core.learnt import OFF
from pipeline.training.checkpoints import (
    COMPLETE,
    claimed,
    damage,
    differences,
    fingerprint,
    in_use,
    mark_complete,
    newest_complete,
    newest_step,
    rotate,
    upgraded,
    written_whole,
)

REPO = Path(__file__).parents[3]
CONFIG = load(compose(REPO / "conf"))
CLAIM = """
import sys, time
from pathlib import Path
from common.errors import UserError
from pipeline.training.checkpoints import claimed
try:
    with claimed(Path(sys.argv[1]), {"mine": sys.argv[2]}):
        print("claimed", flush=True)
        time.sleep(float(sys.argv[2]))
except UserError as error:
    sys.exit(f"UserError: {error}")
"""


def name(
    model: Any = CONFIG.model, train: Any = CONFIG.train, data: str = "a", base: str = "b", engine: str = "trl"
) -> str:
    return fingerprint(model, train, data, base, engine)[0]


def checkpoint(folder: Path, step: int, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_text("weights")
    (path / "optimizer.pt").write_text("moments")
    if complete:
        mark_complete(path, {"torch": "1"})
    return path


def save_in_part(folder: Path, error: Exception) -> None:
    with written_whole(folder / "checkpoint-10", {}):
        checkpoint(folder, 10, complete=False)
        raise error


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


def test_the_fingerprint_is_a_short_name_that_stays() -> None:
    assert name() == name()
    assert len(name()) == 16
    assert fingerprint(CONFIG.model, CONFIG.train, "a", "b", "trl")[1]["data"] == "a"


@pytest.mark.parametrize(
    "change",
    [
        {"model": replace(CONFIG.model, path="elsewhere")},
        {"model": replace(CONFIG.model, revision="abc")},
        {"model": replace(CONFIG.model, chat_template="other.jinja")},
        {"train": replace(CONFIG.train, lr=1e-3)},
        {"train": replace(CONFIG.train, max_steps=501)},
        {"train": replace(CONFIG.train, seed=43)},
        {"train": replace(CONFIG.train, effective_batch=16)},
        {"train": replace(CONFIG.train, max_length=128)},
        {"train": replace(CONFIG.train, lora=replace(CONFIG.train.lora, r=8))},
        {"train": replace(CONFIG.train, lora=replace(CONFIG.train.lora, rslora=True))},
        {"train": replace(CONFIG.train, lora=replace(CONFIG.train.lora, dora=True))},
        {"train": replace(CONFIG.train, lora=replace(CONFIG.train.lora, modules_to_save=["norm"]))},
        {"train": replace(CONFIG.train, lora=replace(CONFIG.train.lora, target_modules=["q_proj"]))},
        {"train": replace(CONFIG.train, neftune_alpha=5.0)},
        {"train": replace(CONFIG.train, min_lr_ratio=0.1)},
        {"train": replace(CONFIG.train, decay_ratio=0.1)},
        {"train": replace(CONFIG.train, frozen_dtype="fp8")},
        {"train": replace(CONFIG.train, patience=3)},
        {"data": "b"},
        {"base": "c"},
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
        {"max_truncated": 1.0},
        {"batch_size": 1},
        {"packing": True},
        {"attention": "flash"},
        {"compile": True},
        {"gradient_checkpointing": True},
        {"batch_size": 8, "gradient_accumulation_steps": 4},  # of 32, too
    ],
)
def test_the_fingerprint_does_not_change_with_how_it_is_watched_or_carried_out(change: dict[str, Any]) -> None:
    assert name(train=replace(CONFIG.train, **change)) == name()


def test_settings_that_came_later_leave_trainings_of_before_their_names() -> None:
    settings = fingerprint(CONFIG.model, CONFIG.train, "a", "b", "trl")[1]["train"]
    groups = ("lora", "preference")
    assert not set(OFF) & set(settings).union(*(settings.get(group, ()) for group in groups))
    given = asdict(CONFIG.train)
    assert all((given | given["lora"] | given["preference"])[key] == value for key, value in OFF.items())


def test_evaluations_count_where_they_end_a_training() -> None:
    patient = replace(CONFIG.train, patience=2)
    assert name(train=patient) != name(train=replace(patient, eval_steps=3))


def test_auto_and_the_engine_that_it_takes_are_one(tmp_path: Path) -> None:
    assert name(train=replace(CONFIG.train, engine="trl")) == name(train=replace(CONFIG.train, engine="auto"))


def test_the_newest_complete_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    assert newest_complete(tmp_path / "missing") is None
    for step in (5, 10, 100):
        checkpoint(tmp_path, step)
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-100"  # by number and not by name
    assert newest_complete(tmp_path, at_most=99) == tmp_path / "checkpoint-10"
    assert newest_complete(tmp_path, at_most=4) is None


def cut_off(path: Path) -> None:
    (path / COMPLETE).unlink()


def lose(path: Path) -> None:
    (path / "optimizer.pt").unlink()


def shorten(path: Path) -> None:
    (path / "optimizer.pt").write_text("mom")


def flip(path: Path) -> None:
    (path / "optimizer.pt").write_text("momentS")


def garble(path: Path) -> None:
    (path / COMPLETE).write_bytes(b"{\xff")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut_off, "was cut off while it was saved"),
        (lose, "lacks optimizer.pt"),
        (shorten, "has 3 bytes of optimizer.pt instead of 7"),
        (flip, "has another optimizer.pt than was saved"),
        (garble, "has a complete.json that cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_with_a_warning_that_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Any, said: str
) -> None:
    checkpoint(tmp_path, 5)
    harm(checkpoint(tmp_path, 10))
    harm(checkpoint(tmp_path, 15))
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-5"
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-5",
        "incomplete-checkpoint-10",
        "incomplete-checkpoint-15",
    }
    lines = [
        f"warning: {tmp_path}/checkpoint-{step} {said}; set aside as incomplete-checkpoint-{step}" for step in (15, 10)
    ]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_step_that_is_cut_off_twice_is_set_aside_twice(tmp_path: Path) -> None:
    for _ in range(2):
        checkpoint(tmp_path, 10, complete=False)
        assert newest_complete(tmp_path) is None
    assert not (tmp_path / "checkpoint-10").exists()


def test_a_checkpoint_counts_once_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-10"
    with written_whole(path, {"torch": "1"}):
        checkpoint(tmp_path, 10, complete=False)
        assert damage(path) == "was cut off while it was saved"
        assert newest_step(tmp_path) is None
    mark = json.loads((path / COMPLETE).read_text())
    assert (mark["step"], mark["libraries"]) == (10, {"torch": "1"})
    assert {name: file["bytes"] for name, file in mark["files"].items()} == {
        "adapter_model.safetensors": 7,
        "optimizer.pt": 7,
    }
    assert newest_complete(tmp_path) == path


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_a_full_disk_cuts_off_is_removed_and_the_line_names_the_one_before(
    tmp_path: Path, error: Exception
) -> None:
    checkpoint(tmp_path, 5)
    with pytest.raises(UserError) as raised:
        save_in_part(tmp_path, error)
    assert str(raised.value) == (
        f"cannot save {tmp_path}/checkpoint-10: No space left on device; that of step 5 is whole; make room or grant "
        "access there, then run again"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_a_defect_while_saving_stays_one_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="defect"):
        save_in_part(tmp_path, ValueError("defect"))
    assert list(tmp_path.iterdir()) == []


def test_what_was_set_aside_makes_room_for_the_next_save(tmp_path: Path) -> None:
    checkpoint(tmp_path, 7, complete=False)
    assert newest_complete(tmp_path) is None
    assert (tmp_path / "incomplete-checkpoint-7").is_dir()
    with written_whole(tmp_path / "checkpoint-7", {}):
        assert list(tmp_path.iterdir()) == []
        checkpoint(tmp_path, 7, complete=False)
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-7"


def test_what_others_put_into_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-100.bak").mkdir()
    assert newest_complete(tmp_path) is None


@pytest.mark.parametrize("content", [b"{half", b"", b"[]", b"[1]", b'"text"', b"null", b"7", b"{}", b"\xff", b"\0\0"])
def test_from_damaged_settings_of_another_training_nothing_is_told(tmp_path: Path, content: bytes) -> None:
    with claimed(tmp_path / "other", {"train": {"lr": 1}}):
        (tmp_path / "other/settings.json").write_bytes(content)
    assert differences(tmp_path / "new", {"train": {"lr": 2}}) == []


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 100):
        checkpoint(tmp_path, step)
    rotate(tmp_path, keep=2, step=100, best=10)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10", "checkpoint-20", "checkpoint-100"}


def test_rotation_leaves_later_ones_alone(tmp_path: Path) -> None:
    for step in (5, 10, 15, 90, 100):
        checkpoint(tmp_path, step)
    rotate(tmp_path, keep=2, step=15, best=None)
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in (10, 15, 90, 100)}


def test_rotation_does_not_count_what_is_not_complete(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10, complete=False)
    rotate(tmp_path, keep=1, step=10, best=None)
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-5"


def test_a_fresh_start_says_which_keys_differ_from_the_training_that_ran_last(tmp_path: Path) -> None:
    assert differences(tmp_path / "new", {"train": {"lr": 1}}) == []
    for order, (folder, rate) in enumerate((("older", 3.0), ("last", 2.0))):
        with claimed(tmp_path / folder, {"train": {"lr": rate, "seed": 1}, "data": "a"}):
            os.utime(tmp_path / folder / "settings.json", (order, order))
    now = {"train": {"lr": 1.0, "seed": 1, "packing": True}, "data": "b"}
    with claimed(tmp_path / "new", now):
        assert differences(tmp_path / "new", now) == [
            "data: a -> b",
            "train.lr: 2.0 -> 1.0",
            "train.packing: (none) -> True",
        ]


def test_a_library_upgrade_is_named(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5)
    assert upgraded(path, {"torch": "1"}) == []
    assert upgraded(path, {"torch": "2", "trl": "3"}) == ["torch 1 -> 2", "trl None -> 3"]
    mark = path / "complete.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "libraries": ["torch"]}))
    assert upgraded(path, {"torch": "1"}) == ["torch None -> 1"]


def test_a_claimed_folder_names_the_settings_it_stands_for(tmp_path: Path) -> None:
    with claimed(tmp_path / "deep/abc", {"train": {"lr": 1e-3}}):
        assert json.loads((tmp_path / "deep/abc/settings.json").read_text()) == {"train": {"lr": 1e-3}}
    claim(tmp_path / "deep/abc")  # given back


def test_a_second_trainer_is_refused_in_one_line_until_the_first_is_gone(tmp_path: Path) -> None:
    with trainer_in(tmp_path) as first:
        assert in_use(tmp_path)
        with pytest.raises(
            UserError, match=rf"^process {first.pid} on .* trains the same in .*; wait for it"
        ) as raised:
            claim(tmp_path)
        assert "\n" not in str(raised.value)
        assert json.loads((tmp_path / "settings.json").read_text()) == {"mine": "600"}
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not in_use(tmp_path)
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
