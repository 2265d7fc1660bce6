"""benchmarks/export.py: ours and the peer on a tiny model, and how memory is counted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import export


def test_both_ways_are_measured_and_end_in_a_table(tmp_path: Path) -> None:
    command = ["--shapes", "tiny", "--repeats", "1", "--work", str(tmp_path), "--results", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "benchmarks.export", *command], cwd=export.REPOSITORY, check=True)
    report = json.loads((tmp_path / "export.json").read_text())
    found = report["shapes"]["tiny"]
    for name in ("ours", "peer", "checks"):
        assert found[name]["seconds"] > 0
        assert found[name]["resident_gb"] >= found[name]["anonymous_gb"] > 0.01
    assert found["ratio"]["seconds"] == pytest.approx(found["ours"]["seconds"] / found["peer"]["seconds"], abs=1e-3)
    assert (tmp_path / "export.md").read_text().count("| tiny |") == 4
    assert {path.name for path in tmp_path.iterdir()} == {"export.json", "export.md"}


def test_the_memory_is_the_most_of_a_process_and_its_children() -> None:
    child = "held = bytearray(80_000_000); import time; time.sleep(0.5)"
    parent = f"import subprocess, sys; held = bytearray(50_000_000); subprocess.run([sys.executable, '-c', {child!r}])"
    assert 0.13 < export.watched([sys.executable, "-c", parent])["anonymous_gb"] < 0.2


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="no such luck"):
        export.watched([sys.executable, "-c", "raise SystemExit('no such luck')"])
