"""The journal: whatever is killed, cut off or refused, the entries written before it stay."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mounts import may_mount

from common.errors import UserError
from pipeline.tracking.journal import COPIED, JOURNAL, Journal

REPO = Path(__file__).parents[3]
FILL = """
import sys
from pathlib import Path
from common.errors import UserError
from pipeline.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
try:
    for step in range(100_000):
        journal.append("metrics", {"loss": 1.0}, step)
except UserError as error:
    print(step)
    print(len(list(journal.entries())))
    sys.exit(f"UserError: {error}")
"""
APPEND = """
import sys
from pathlib import Path
from pipeline.tracking.journal import Journal
for step in range(200):
    Journal(Path(sys.argv[1])).append("metrics", {sys.argv[2]: 1.0, "x" * 300: 2.0}, step)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO)}


def values(journal: Journal, start: int = 0) -> list[Any]:
    return [entry.value for entry, _ in journal.entries(start)]


def test_entries_come_back_in_order_and_from_any_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "deep/abc")
    assert (values(journal), journal.size) == ([], 0)
    journal.append("params", {"model.name": "ä"})
    journal.append("metrics", {"loss": 0.5}, 3)
    (first, middle), (second, end) = journal.entries()
    assert (first.kind, first.value, first.step) == ("params", {"model.name": "ä"}, None)
    assert (second.kind, second.step) == ("metrics", 3)
    assert 0 < first.time <= second.time
    assert end == journal.size
    assert values(Journal(tmp_path / "deep/abc"), middle) == [{"loss": 0.5}]
    assert values(journal, end) == []


def test_every_line_is_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("metrics", {"loss": 1.5}, 3)
    journal.append("status", {"name": "x", "status": "FINISHED"})
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["metrics", "status"]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.append("tags", {"n": "1"})
    journal.append("tags", {"n": "2"})
    os.truncate(journal.path, journal.size - cut)
    whole = [{"n": "1"}, {"n": "2"}] if cut == 1 else [{"n": "1"}]  # only its end of line is missing
    assert values(Journal(tmp_path)) == whole
    Journal(tmp_path).append("tags", {"n": "3"})
    assert values(journal) == [*whole, {"n": "3"}]


def test_what_is_no_entry_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("tags", {"n": "1"})
    with journal.path.open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n{"kind": "tags"}\n\n')
    journal.append("tags", {"n": "2"})
    assert values(journal) == [{"n": "1"}, {"n": "2"}]


def test_what_was_sent_and_to_which_run_is_remembered(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert (journal.sent, journal.run_id) == (0, None)
    journal.append("tags", {"n": "1"})
    journal.sent, journal.run_id = journal.size, "abc"
    assert (Journal(tmp_path).sent, Journal(tmp_path).run_id) == (journal.size, "abc")
    assert (tmp_path / "mlflow_run").read_text() == "abc"


def test_a_new_journal_beside_an_old_count_is_sent_from_its_start(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("tags", {"n": "1"})
    journal.sent = journal.size
    journal.path.unlink()
    assert journal.sent == 0
    (tmp_path / "mlflow_sent").write_text("no number")
    assert journal.sent == 0


def test_a_small_file_is_copied_as_it_is_now_and_a_large_one_stays(tmp_path: Path) -> None:
    journal, small, large = Journal(tmp_path / "abc"), tmp_path / "report.json", tmp_path / "large"
    small.write_text("now")
    large.write_bytes(bytes(COPIED + 1))
    name = journal.keep(small)
    small.unlink()
    assert journal.kept(name).read_text() == "now"
    assert journal.kept(journal.keep(large)) == large
    with pytest.raises(FileNotFoundError):
        journal.keep(tmp_path / "missing")


def test_two_processes_may_append_at_once(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", APPEND, str(tmp_path), name] for name in ("a", "b")]
    for process in [subprocess.Popen(command, env=environment()) for command in commands]:
        assert process.wait() == 0
    steps = {name: [e.step for e, _ in Journal(tmp_path).entries() if name in e.value] for name in ("a", "b")}
    assert steps == {"a": list(range(200)), "b": list(range(200))}


@pytest.mark.skipif(not may_mount(), reason="a full disk needs `unshare -rm` and a mount")
def test_a_full_disk_ends_in_one_line_and_keeps_what_was_written(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=64k none {tmp_path} || exit 99; exec {sys.executable} -c "$1" {tmp_path}/abc'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", FILL]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"UserError: cannot write {tmp_path}/abc/{JOURNAL}: No space left on device; make room")
    written, kept = done.stdout.split()
    assert int(written) == int(kept) > 0


def test_a_folder_that_cannot_be_made_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("no folder")
    with pytest.raises(UserError, match=r"^cannot write .*abc/mlflow.jsonl: .*; make room or .*tracking=none$"):
        Journal(tmp_path / "abc").append("tags", {})
