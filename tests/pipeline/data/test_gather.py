"""Rows are read once, in batches that a run which was killed leaves to the next."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from raw_rows import local, put_rows

from common.files import sha256
from pipeline.data import gather
from pipeline.stages.prepare import SCRATCH, prepare

PREPARE = """
import sys
from pathlib import Path
from raw_rows import local
from pipeline.data import gather
from pipeline.stages.prepare import prepare
gather.BATCH = 100
prepare(local(), Path(sys.argv[1]), Path(sys.argv[1]))
"""


def pairs(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"Question {n}?", "answer": f"Answer {n}"} for n in range(start, start + count)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources of the batches that are made."""
    files: list[str] = []
    make = gather._make
    monkeypatch.setattr(gather, "BATCH", 100)
    monkeypatch.setattr(gather, "_make", lambda *args: files.append(args[0].name) or make(*args))
    return files


def test_a_killed_run_leaves_nothing_half_written_and_the_next_goes_on(tmp_path: Path, made: list[str]) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        put_rows(folder, "a.jsonl", [*pairs(4000), {"question": "Why?"}])
        put_rows(folder, "b.jsonl", pairs(4000, 4000))
    prepare(local(), whole, whole)
    assert len(made) == 81
    run = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(killed)], env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    while len(list((killed / SCRATCH).glob("*/*.pickle"))) < 20:
        assert run.poll() is None
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (killed / "data/prepared").exists()
    assert not (killed / "data/rejected.jsonl").exists()
    made.clear()
    prepare(local(), killed, killed)
    assert len(made) <= 61
    assert not (killed / SCRATCH).exists()
    for place in ("data/prepared", "data/rejected.jsonl", "reports/prepare.json"):
        assert sha256(killed / place) == sha256(whole / place)


def test_batches_of_other_settings_or_files_are_not_taken(tmp_path: Path, made: list[str]) -> None:
    put_rows(tmp_path, "a.jsonl", pairs(300))
    other = tmp_path / SCRATCH / "0123456789abcdef"
    other.mkdir(parents=True)
    prepare(local(), tmp_path, tmp_path)
    assert len(made) == 3
    assert not other.exists()


def test_the_order_of_files_and_the_size_of_batches_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*pairs(300), *pairs(100)]
    digests = set()
    for batch, names in ((7, "abc"), (100, "bca"), (1000, "cab")):
        monkeypatch.setattr(gather, "BATCH", batch)
        folder = tmp_path / names
        for name, first in zip(names, range(0, 400, 150), strict=True):
            put_rows(folder, f"{name}.jsonl", rows[first : first + 150])
        prepare(local(), folder, folder)
        digests.add(tuple(sha256(folder / f"data/prepared/{name}.parquet") for name in ("train", "validation", "test")))
    assert len(digests) == 1
