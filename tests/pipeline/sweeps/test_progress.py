"""What is new of a sweep, and how much of it is left."""

from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from pipeline.sweeps.names import duration, short_names
from pipeline.sweeps.progress import Left, decision_line, ended_lines, look, steps_left
from pipeline.sweeps.record import Trial

RATES = {"train.lr": ["4", "3", "2", "1"]}


def by_rate(values: dict[str, str], step: int) -> float:
    """Return a loss that falls with the rate, and with each step."""
    return float(values["train.lr"]) + 1 / step


@pytest.fixture
def sweep(tmp_path: Path) -> FakeSweep:
    """Return a sweep of four trials and three rungs, that has not begun."""
    return FakeSweep(tmp_path / "rates", RATES, loss=by_rate)


def test_a_job_that_ended_has_a_line_with_its_own_seconds(sweep: FakeSweep) -> None:
    before = look(sweep.folder)
    sweep.finish(3, 2)
    assert ended_lines(before, look(sweep.folder)) == ["rung 1/3  trial 3 of 4  train.lr=1  loss 1.5000  finished  2 s"]
    before = look(sweep.folder)
    sweep.finish(3, 4, begin=2)
    assert ended_lines(before, look(sweep.folder)) == ["rung 2/3  trial 3 of 4  train.lr=1  loss 1.2500  finished  2 s"]


def test_a_job_that_failed_says_why_in_its_line_and_one_that_was_stopped_has_none(sweep: FakeSweep) -> None:
    before = look(sweep.folder)
    sweep.finish(0, 2, status="failed", reason="out of memory")
    sweep.finish(1, 2, status="stopped", reason="SIGTERM")
    assert ended_lines(before, look(sweep.folder)) == ["rung 1/3  trial 0 of 4  train.lr=4  failed: out of memory  2 s"]


def test_a_decision_says_who_goes_on_and_where_the_cut_is(sweep: FakeSweep) -> None:
    sweep.play(rungs=1)
    view = look(sweep.folder)
    assert [decision_line(view, each) for each in view.decisions] == [
        "rung 1 of 3: 2 of 4 go on, best 1.5000 (trial 3: train.lr=1); dropped above 2.5000"
    ]


def test_what_is_left_counts_later_rungs_by_how_many_will_go_on(sweep: FakeSweep) -> None:
    assert steps_left(look(sweep.folder)) == Left(rung=4 * 2, sweep=4 * 2 + 2 * 2 + 1 * 4)
    sweep.advance(0, 2, to=1)
    assert steps_left(look(sweep.folder)) == Left(rung=7, sweep=15)
    sweep.play(rungs=1)
    assert steps_left(look(sweep.folder)) == Left(rung=4, sweep=8)
    sweep.advance(3, 4, begin=2, to=3)
    assert steps_left(look(sweep.folder)) == Left(rung=3, sweep=7)
    sweep.play()
    assert steps_left(look(sweep.folder)) == Left(rung=0, sweep=0)


def test_a_trial_that_failed_leaves_nothing_to_do(sweep: FakeSweep) -> None:
    sweep.finish(0, 2, status="failed", reason="out of memory")
    assert steps_left(look(sweep.folder)) == Left(rung=6, sweep=14)


def test_a_rung_that_was_added_is_left_whole(sweep: FakeSweep) -> None:
    sweep.play()
    sweep.record = sweep.record.model_copy(update={"rungs": ((2, 4, 8, 16),)})
    sweep.record.write(sweep.folder.record_path)
    assert steps_left(look(sweep.folder)) == Left(rung=16, sweep=16)


def test_twins_and_refused_trials_are_no_steps(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=0, values={"train.lr": str(4 - n)}) for n in range(2)]
    trials.append(Trial(number=2, bracket=0, values={"train.lr": "3.0"}, same_as=1))
    trials.append(Trial(number=3, bracket=0, values={"train.lr": "x"}, refused="no number"))
    sweep = FakeSweep(tmp_path / "twins", RATES, loss=by_rate, trials=trials)
    assert steps_left(look(sweep.folder)) == Left(rung=4, sweep=4 + 2 + 4)


def test_a_grid_has_as_many_steps_as_its_jobs_say(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "grid", RATES, [[]], by_rate)
    assert steps_left(look(sweep.folder)) == Left(rung=32, sweep=32)
    sweep.advance(0, None, to=3)
    assert steps_left(look(sweep.folder)) == Left(rung=29, sweep=29)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["train.lr", "train.lora.r"], ["lr", "r"]),
        (["train.seed", "data.seed", "model"], ["train.seed", "data.seed", "model"]),
        (["+train.new"], ["new"]),
    ],
)
def test_names_are_as_short_as_they_can_be(keys: list[str], names: list[str]) -> None:
    assert list(short_names(keys).values()) == names


def test_times_are_said_in_their_largest_unit() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.4, 245, 3723)] == ["0 s", "59 s", "4:05 min", "1:02:03 h"]
