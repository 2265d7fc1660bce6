"""benchmarks/quality.py: what it repeats and what not, how it compares; no training."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import quality, quality_peers
from benchmarks.quality_table import compared, difference, summary, table, verdict

SETUP = {"card": None, "cards": 0, "driver": None, "packages": {"torch": "2.13.0", "trl": "1.14.2"}}


def run(nats: float, right: int, seconds: float = 9.0) -> dict[str, Any]:
    """A scored run of four rows of ten tokens a split, and four questions of which the first ones are right."""
    split = {"nats": [nats * 10] * 4, "tokens": [10] * 4}
    answers = [number < right for number in range(4)]
    return {"validation": split, "test": split, "right": answers, "replies": ["#### 1"], "wall_seconds": seconds}


@pytest.fixture
def bench(tmp_path: Path) -> quality.Bench:
    """A comparison of four trainings on 120 prepared rows."""
    data = tmp_path / "gsm8k"
    data.mkdir()
    for name, count in (("train", 140), ("test", 4)):
        lines = [json.dumps({"question": f"{name} {n} + {n}?", "answer": f"#### {2 * n}"}) for n in range(count)]
        (data / f"{name}.jsonl").write_text("\n".join(lines))
    bench = quality.Bench(tmp_path / "bench", ("data.validation=10", "data.test=10"))
    quality.prepare_rows(bench, data)
    return bench


@pytest.fixture
def keep(bench: quality.Bench) -> Callable[..., None]:
    """Puts figures where a run would."""

    def put(name: str, figures: dict[str, Any]) -> None:
        path = bench.folder / "results" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(figures))

    return put


def test_the_rows_are_prepared_once_with_gsm8ks_test_as_questions(bench: quality.Bench) -> None:
    quality.prepare_rows(bench, None)
    lines = (bench.rows / "data/prepared/questions.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["0", "2", "4", "6"]
    assert bench.updates == 3 * 4  # epochs of 120 rows, 32 an update


def test_all_trainings_have_the_experiments_settings(bench: quality.Bench) -> None:
    ours = quality.training(bench, "ours-2", Path("/runs/ours-2"))
    peer = quality.training(bench, "trl-2", Path("/runs/trl-2"))
    assert ours[0] == "pipeline.stages.train"
    assert peer[:3] == ["benchmarks.quality_peers", "trl", "/runs/trl-2/models/adapter"]
    assert set(peer[3:]) <= set(ours)
    assert {"experiment=gsm8k", "train.seed=2", "train.max_steps=12"} <= set(peer)
    settings = quality_peers.common_settings(bench.config, Path("/runs"))
    train = bench.config.train
    assert settings["per_device_train_batch_size"] == train.update_size == 32
    assert settings["learning_rate"] == train.lr == 1e-3


def test_what_would_hardly_end_is_not_begun(
    bench: quality.Bench, keep: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "execute", lambda *_: pytest.fail("it was begun"))
    keep("ours-1", run(1.0, 2, seconds=100))
    quality.measure(bench, "trl-1", time.monotonic() + 90)
    assert "not begun, for lack of time: trl-1;" in capsys.readouterr().out
    assert bench.result("trl-1") is None


def test_an_adapter_that_is_there_is_scored_and_not_trained_again(
    bench: quality.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def execute(module: list[str], working: Path, log: Path, deadline: float) -> int:
        begun.append(module[0])
        if module[0] == "benchmarks.quality_score":
            Path(module[2]).write_text(json.dumps(run(1.0, 2)))
        else:
            Path(module[2]).mkdir(parents=True)
        return 0

    monkeypatch.setattr(quality, "execute", execute)
    for _ in range(2):
        quality.measure(bench, "trl-1", time.monotonic() + 60)
    assert begun == ["benchmarks.quality_peers", "benchmarks.quality_score", "benchmarks.quality_score"]
    assert (bench.result("trl-1") or {})["right"] == [True, True, False, False]


def test_a_failure_has_a_reason_and_a_cut_off_run_none(bench: quality.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "execute", lambda *_: None)
    quality.measure(bench, "ours-1", time.monotonic() + 60)
    assert bench.result("ours-1") is None

    def fail(module: list[str], working: Path, log: Path, deadline: float) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("train: the GPU is full\n")
        return 1

    monkeypatch.setattr(quality, "execute", fail)
    quality.measure(bench, "ours-1", time.monotonic() + 60)
    assert (bench.result("ours-1") or {})["failed"] == "train: the GPU is full"


def test_a_difference_is_paired_over_rows_and_widened_by_seeds() -> None:
    rows = [1.0, 5.0, 2.0, 9.0, 4.0, 3.0]
    shifted = [value - 0.5 for value in rows]
    paired = difference([shifted], [rows], [1] * 6)
    assert paired == pytest.approx({"value": -0.5, "low": -0.5, "high": -0.5})  # what is hard for both widens nothing
    seeds = difference([rows, shifted], [rows, shifted], [1] * 6)
    assert seeds["value"] == pytest.approx(0)
    assert seeds["low"] == pytest.approx(-0.5)
    assert seeds["high"] == pytest.approx(0.5)
    assert difference([shifted], [rows], [2] * 6)["value"] == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("figure", "found", "expected"),
    [
        ("accuracy", {"trl": (-0.01, -0.03, 0.01), "unsloth": (0.02, 0.01, 0.03)}, ("trl", True)),
        ("accuracy", {"trl": (-0.02, -0.03, -0.01), "unsloth": (0.0, -0.1, 0.1)}, ("trl", False)),
        ("test_loss", {"trl": (0.02, 0.01, 0.03), "unsloth": (-0.1, -0.2, 0.0)}, ("trl", False)),
        ("test_loss", {"trl": (0.02, -0.01, 0.05), "unsloth": (0.01, -0.2, 0.2)}, ("trl", True)),
        ("test_loss", {}, None),
    ],
)
def test_ours_is_held_against_the_better_peer(figure: str, found: dict[str, Any], expected: Any) -> None:
    against = {
        peer: {figure: dict(zip(("value", "low", "high"), bounds, strict=True))} for peer, bounds in found.items()
    }
    assert verdict(against, figure) == expected


def test_the_table_has_every_engine_and_what_follows(bench: quality.Bench, keep: Callable[..., None]) -> None:
    keep("base", run(2.0, 0))
    keep("ours-1", run(1.0, 2))
    keep("ours-2", run(1.2, 3))
    keep("trl-1", run(0.5, 1))
    keep("trl-2", {"failed": "no | memory", "wall_seconds": 1.0})
    report = quality.collect(bench, SETUP)
    assert report["runs"]["ours-1"] == summary(run(1.0, 2))
    assert report["against"] == {"trl": compared([run(1.0, 2), run(1.2, 3)], [run(0.5, 1)])}
    lines = table(report).splitlines()
    assert "| base | untouched | 2.0000 | 2.0000 | 0.0% |" in lines
    assert (
        "| ours | the train stage | 1.1000 (1.0000, 1.2000) | 1.1000 (1.0000, 1.2000) | 62.5% (50.0%, 75.0%) |" in lines
    )
    assert any(line.startswith("| trl | ") and line.endswith(" | 0.5000 | 0.5000 | 25.0% |") for line in lines)
    assert any(line.startswith("| unsloth | ") and "| not run: it needs a GPU |" in line for line in lines)
    assert "- test loss: ours is WORSE than the better of them, trl." in lines
    assert "- accuracy: ours is no worse than the better of them, trl." in lines
