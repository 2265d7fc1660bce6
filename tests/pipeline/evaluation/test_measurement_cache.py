"""What is measured once, and what is measured anew: after a change, and where a disk has damaged it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation import measurement_cache
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


def test_of_no_rows_nothing_is_measured_nor_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    assert MeasurementCache(tmp_path, "a").each("base-questions", [], lambda _: []) == ([], None)
    assert not caplog.text


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


class Rows:
    """Measures rows that are texts, by their length, and remembers which; one of these stops it."""

    def __init__(self, keys: list[str], stops_at: str = "") -> None:
        self.keys, self.stops_at = keys, stops_at
        self.taken: list[str] = []

    def __call__(self, places: list[int]) -> Iterator[tuple[int, Any]]:
        for number, place in reversed(list(enumerate(places))):
            if self.keys[place] == self.stops_at:
                raise KeyboardInterrupt
            self.taken.append(self.keys[place])
            yield number, math.nan if self.keys[place] == "nan" else len(self.keys[place])


def each(folder: Path, keys: list[str], depends: object = "file", stops_at: str = "") -> tuple[list[Any], list[str]]:
    """What is found of rows, and which of them were measured for it."""
    measure = Rows(keys, stops_at)
    return MeasurementCache(folder, "a").each("F16-loss", keys, measure, depends).values, measure.taken


def test_rows_are_measured_once_whatever_their_order_and_number(tmp_path: Path) -> None:
    assert each(tmp_path, ["a", "nan", "ccc"]) == ([1, None, 3], ["ccc", "nan", "a"])
    assert each(tmp_path, ["ccc", "dddd", "a", "ccc"]) == ([3, 4, 1, 3], ["dddd"])
    assert each(tmp_path, ["nan"]) == ([None], [])
    assert each(tmp_path, []) == ([], [])


def test_rows_of_another_file_are_not_taken_and_stay_for_its_return(tmp_path: Path) -> None:
    for depends, taken in (("file", ["bb", "a"]), ("other", ["bb", "a"]), ("file", [])):
        assert each(tmp_path, ["a", "bb"], depends) == ([1, 2], taken)


def test_what_was_measured_before_an_error_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        each(tmp_path, ["a", "bb", "ccc"], stops_at="a")
    assert each(tmp_path, ["a", "bb", "ccc"]) == ([1, 2, 3], ["a"])


def test_rows_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement_cache, "SAVE_SECONDS", 0.0)
    cache, keys = MeasurementCache(tmp_path, "a"), ["a", "bb", "ccc"]
    on_disk = []

    def measure(places: list[int]) -> Iterator[tuple[int, int]]:
        for place in places:
            on_disk.append(sum(len(path.read_text().splitlines()) for path in tmp_path.glob("*/*.jsonl")))
            yield place, 1

    cache.each("F16-loss", keys, measure)
    assert on_disk == [0, 1, 2]


def test_rows_of_a_damaged_line_are_measured_anew_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measurement_cache, "SAVE_SECONDS", 0.0)
    keys = ["a", "bb", "ccc"]
    each(tmp_path, keys)
    (path,) = tmp_path.glob("*/*.jsonl")
    whole = path.read_text()
    last, middle = whole[: len(whole) - 20], whole.replace('"bb": 2', '"bb": 7')
    for content, lost in ((last, ["a"]), (middle, ["bb"]), ("", keys[::-1]), ("[" * 100_000 + "\n" + last, ["a"])):
        path.write_text(content)
        caplog.clear()
        assert each(tmp_path, keys) == ([1, 2, 3], lost)
        damaged = f"{path} is damaged: what is lost of it is measured anew"
        assert (damaged in caplog.messages) is bool(content)
        assert each(tmp_path, keys) == ([1, 2, 3], [])


def test_it_says_what_it_measures_and_what_it_has_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    each(tmp_path, ["a", "bb"])
    cache = MeasurementCache(tmp_path, "a")
    for keys in (["a"], ["a", "bb"], ["a", "bb", "ccc"]):
        cache.each("F16-loss", keys, Rows(keys), "file")
    (path,) = cache.folder.iterdir()
    assert caplog.messages == [
        "measuring F16-loss",
        f"F16-loss: measured before ({path})",
        "measuring F16-loss, 1 more row",
    ]


def test_the_speed_is_of_all_rows_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 1.0, 4.0, 10.0, 16.0))
    monkeypatch.setattr(measurement_cache.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measurement_cache, "SAVE_SECONDS", 100.0)
    cache = MeasurementCache(tmp_path, "a")
    keys = ["a", "bb"]
    assert cache.each("base-loss", keys, Rows(keys)).per_second == 2 / 4
    assert cache.each("base-loss", [*keys, "c"], Rows([*keys, "c"])).per_second == 3 / 10
    assert cache.each("tuned-loss", [], Rows([])).per_second is None
