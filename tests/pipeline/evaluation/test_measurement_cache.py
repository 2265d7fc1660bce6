"""What is measured once, and what is measured anew: after a change, and where a disk has damaged it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.measurement_cache import MeasurementCache

LOSS = {"nats": [1.25, None], "samples_per_second": 3}


class Counted:
    """Measures, and counts how often."""

    def __init__(self, measured: Any) -> None:
        self.measured, self.times = measured, 0

    def __call__(self) -> Any:
        self.times += 1
        return self.measured


def test_what_was_measured_is_taken_by_the_next_evaluation_as_it_was(tmp_path: Path) -> None:
    measure = Counted({"nats": (1.25, math.nan), "samples_per_second": 3})
    found = [MeasurementCache(tmp_path, {"model": "a"}).get("base-loss", measure) for _ in range(3)]
    assert found == [LOSS] * 3
    assert measure.times == 1


def test_nothing_measured_is_a_measurement_too(tmp_path: Path) -> None:
    measure = Counted(None)
    assert [MeasurementCache(tmp_path, "a").get("base-loss", measure) for _ in range(2)] == [None, None]
    assert measure.times == 1


def test_what_other_things_stand_on_is_removed(tmp_path: Path) -> None:
    measure = Counted(LOSS)
    for depends in ("a", "b", "a"):
        MeasurementCache(tmp_path, depends).get("base-loss", measure)
    assert measure.times == 3
    assert len(list(tmp_path.iterdir())) == 1


def damaged(text: str) -> list[bytes]:
    """A file of the cache as disks, and people, leave it."""
    whole, kept = text.encode(), json.loads(text)
    others = [{**kept, "measured": {**LOSS, "nats": [1.5, None]}}, {**kept, "measured": []}, LOSS, [], None, 1, "text"]
    cut = [whole[: len(whole) // 2], b"", bytes(len(whole)), whole[:-4] + bytes(4), b"\xff" + whole, b"[" * 100_000]
    return [*cut, *(json.dumps(other).encode() for other in others)]


def test_what_is_damaged_is_measured_anew_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    cache = MeasurementCache(tmp_path, "a")
    cache.get("base-loss", lambda: LOSS)
    (path,) = cache.folder.iterdir()
    text = path.read_text()
    for content in damaged(text):
        path.write_bytes(content)
        caplog.clear()
        measure = Counted(LOSS)
        assert cache.get("base-loss", measure) == LOSS
        assert measure.times == 1, content[:80]
        assert caplog.messages == [f"{path} is damaged: it is measured anew", "measuring base-loss"]
        assert path.read_text() == text
