"""A turn of the loop under real DVC, from what visitors said to another champion: as it is, and killed on its way."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from chaos_process import environment, ordinary_signals
from turn_bench import TURN, TurnBench
from turn_chaos import TurnRound

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> TurnBench:
    """A repository whose turn has been taken, with nothing done to it."""
    ordinary_signals()
    return TurnBench(tmp_path_factory.mktemp("turn"))


@pytest.fixture
def taken(bench: TurnBench) -> Iterator[Path]:
    """The repository after its turn; what a test changes of it is put back."""
    small = ("reports/turn.json", "mlflow.db", "params.yaml")
    before = {name: (bench.repository / name).read_bytes() for name in small}
    yield bench.repository
    for name, content in before.items():
        (bench.repository / name).write_bytes(content)


def turn(bench: TurnBench, *overrides: str) -> tuple[int, str]:
    """The status of a turn that does not come to its stages, and the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "turn", *overrides],
        cwd=bench.repository, env=environment(bench.folder, sys.executable), capture_output=True, text=True,
    )  # fmt: skip
    assert "Running stage" not in done.stdout
    return done.returncode, done.stderr.splitlines()[-1]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_turn_ends_in_another_champion_and_says_of_what(bench: TurnBench, taken: Path) -> None:
    record, learnt = bench.record(), read(taken / "data/feedback/manifest.json")
    assert record["promoted"]
    assert record["start"] == "champion"
    assert (record["before"]["version"], record["after"]["version"]) == ("1", "2")
    assert record["why"].startswith("promoted: version 2 of tunesmith")
    assert record["pairs"] == sum(split["pairs"] for split in learnt["splits"].values()) > 60
    assert read(taken / "reports/train.json")["steps"] == 12
    assert sorted(path.name for path in (taken / "data/turn").iterdir()) == ["lock"]


def test_the_held_out_pairs_are_judged_on_and_what_was_taught_is_measured_beside_them(
    bench: TurnBench, taken: Path
) -> None:
    held_out = [json.loads(line) for line in (taken / "data/feedback/pairs/test.jsonl").read_text().splitlines()]
    rows = pq.read_table(taken / "data/prepared/preferences/test.parquet").to_pylist()
    chosen = {row["messages"][-1]["content"] for row in rows if row["good"]}
    assert chosen == {row["chosen"][0]["content"] for row in held_out}
    found = read(taken / "reports/rows.json")
    assert len(found["pairs"]) == len(held_out) > 8
    assert sum(found["models"]["Q8_0"]["preferred"]) > sum(found["models"]["base"]["preferred"])
    taught = pq.read_table(taken / "data/prepared/test.parquet").to_pylist()
    assert {row["source"] for row in taught} == {"taught"}
    assert len(taught) > 200


def test_nothing_new_is_no_turn(bench: TurnBench, taken: Path) -> None:
    status, line = turn(bench, *TURN)
    assert (status, line[:42]) == (3, "turn: nobody said anything new since the t")


def test_a_champion_that_vanished_is_not_replaced_unseen(bench: TurnBench, taken: Path) -> None:
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{taken}/mlflow.db").delete_registered_model_alias("tunesmith", "champion")
    status, line = turn(bench, *TURN, "train.seed=1")
    assert status == 1
    assert line.startswith("turn: the champion, version 2 of tunesmith, is gone from MLflow's registry")


def test_a_turn_that_is_killed_ends_in_the_same_champion(bench: TurnBench) -> None:
    shutil.move(bench.repository, bench.folder / "taken")
    try:
        result = TurnRound("short", [(0.25, "turn"), (0.45, "all"), (0.6, "turn")], bench).play()
        assert result.wrong == {}
        assert result.starts > 2  # a turn that is gone on with may end before the last blow
    finally:
        shutil.rmtree(bench.repository, ignore_errors=True)
        shutil.move(bench.folder / "taken", bench.repository)
