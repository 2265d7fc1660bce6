import json
import random
from pathlib import Path

import pytest

from benchmarks.prepare import STEPS, accuracy, conversations, exact, ours, steps
from pipeline.data.folding import fold
from pipeline.stages import prepare as stage


def test_planted_near_duplicates_are_found_and_no_others() -> None:
    rows = conversations(1500, random.Random(1))
    prompts = [fold(row[0]["content"]) for row in rows]
    right = exact(prompts)
    result = accuracy(ours(prompts), right)
    assert len(right) > 60
    assert result["recall"] >= 0.97
    assert result["precision"] >= 0.99


def test_each_step_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for function in STEPS.values():
        monkeypatch.setattr(stage, function, getattr(stage, function))  # which the benchmark wraps, and this undoes
    file = tmp_path / "rows.jsonl"
    rows = conversations(300, random.Random(1))
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    assert list(steps(file, tmp_path / "out")) == [*STEPS, "all", "peak GiB"]
