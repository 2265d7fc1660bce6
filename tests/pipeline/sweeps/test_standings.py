"""How far trials have come, as a sweep's files say."""

import os
from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from pipeline.core.trials import LOG, TASK
from pipeline.sweeps.record import Trial
from pipeline.sweeps.standings import Standing, decisions, standings

RATES = {"train.lr": ["4", "3", "2", "1"]}  # the last one is the best


def by_rate(values: dict[str, str], step: int) -> float:
    """Return a loss that falls with the rate, and with each step."""
    return float(values["train.lr"]) + 1 / step


@pytest.fixture
def sweep(tmp_path: Path) -> FakeSweep:
    """Return a sweep of four trials and three rungs, that has not begun."""
    return FakeSweep(tmp_path / "rates", RATES, loss=by_rate)


def of(sweep: FakeSweep, number: int) -> Standing:
    """Return a trial's standing."""
    return next(each for each in standings(*sweep.parts) if each.trial.number == number)


def test_a_sweep_that_has_not_begun_has_all_trials_waiting(sweep: FakeSweep) -> None:
    assert [(each.state, each.rung, each.stops) for each in standings(*sweep.parts)] == [("waiting", 1, ())] * 4
    assert decisions(*sweep.parts) == []


def test_a_job_that_was_told_and_has_not_written_waits(sweep: FakeSweep) -> None:
    sweep.tell(0, 2)
    assert of(sweep, 0).state == "waiting"


def test_a_job_that_writes_runs_and_shows_its_newest_loss(sweep: FakeSweep) -> None:
    sweep.advance(0, 2, to=1)
    assert (of(sweep, 0).state, of(sweep, 0).loss, of(sweep, 0).step) == ("running", 5.1, 1)
    sweep.advance(0, 4, begin=2, to=4)
    assert (of(sweep, 0).rung, of(sweep, 0).loss, of(sweep, 0).step) == (2, 4.25, 4)


def test_a_job_that_was_cut_off_waits_once_it_is_told_again(sweep: FakeSweep) -> None:
    folder = sweep.advance(0, 2, to=1)
    written = (folder / LOG).stat().st_mtime_ns
    os.utime(folder / TASK, ns=(written + 1, written + 1))
    assert of(sweep, 0).state == "waiting"


def test_a_trial_through_its_rung_is_told_to_have_passed_until_the_others_are(sweep: FakeSweep) -> None:
    sweep.finish(0, 2)
    assert of(sweep, 0).state == "passed"


def test_a_rung_that_all_are_through_with_drops_half(sweep: FakeSweep) -> None:
    sweep.play(rungs=1)
    assert [(each.trial.number, each.state) for each in standings(*sweep.parts)] == [
        (3, "passed"),
        (2, "passed"),
        (1, "dropped"),
        (0, "dropped"),
    ]
    (decision,) = decisions(*sweep.parts)
    assert (decision.rung, decision.step, decision.entered, decision.cut) == (1, 2, 4, 2.5)
    assert (decision.kept, decision.dropped) == ({3: 1.5, 2: 2.5}, {1: 3.5, 0: 4.5})


def test_who_came_furthest_leads_whatever_others_had_before(tmp_path: Path) -> None:
    def turned(values: dict[str, str], step: int) -> float:
        return by_rate(values, step) + 100 * (step > 2)

    sweep = FakeSweep(tmp_path / "turned", RATES, loss=turned)
    sweep.play()
    ranked = standings(*sweep.parts)
    assert [each.trial.number for each in ranked] == [3, 2, 1, 0]
    assert [each.rung for each in ranked] == [3, 2, 1, 1]
    assert [each.place for each in ranked] == [1, 2, 3, 4]
    assert ranked[0].state == "finished"


def test_a_curve_goes_over_all_rungs_with_both_losses_of_a_step_in_one_point(sweep: FakeSweep) -> None:
    sweep.play()
    curve = standings(*sweep.parts)[0].curve
    assert [point.step for point in curve] == [1, 2, 3, 4, 5, 6, 7, 8]
    file = sweep.folder.job(3, 8).path / "progress.jsonl"
    file.write_text('{"step": 5, "of": 8, "train_loss": 7}\n{"step": 5, "of": 8, "validation_loss": 6}\n', "utf-8")
    point = next(point for point in standings(*sweep.parts)[0].curve if point.step == 5)
    assert (point.train_loss, point.validation_loss) == (7, 6)


def test_what_ended_failed_or_was_refused_stands_last_with_its_reason(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=0, values={"train.lr": str(4 - n)}) for n in range(3)]
    trials.append(Trial(number=3, bracket=0, values={"train.lr": "x"}, refused="train.lr is no number"))
    sweep = FakeSweep(tmp_path / "ill", RATES, loss=by_rate, trials=trials)
    sweep.finish(0, 2, status="failed", reason="out of memory")
    sweep.finish(1, 2, status="ended", reason="diverged")
    assert [(each.trial.number, each.state, each.reason) for each in standings(*sweep.parts)] == [
        (2, "waiting", None),
        (1, "ended", "diverged"),
        (0, "failed", "out of memory"),
        (3, "refused", "train.lr is no number"),
    ]


def test_a_stopped_job_says_why_and_is_not_through(sweep: FakeSweep) -> None:
    sweep.play(rungs=1)
    sweep.finish(0, 2, status="stopped", reason="SIGTERM")
    assert (of(sweep, 0).state, of(sweep, 0).reason) == ("stopped", "SIGTERM")
    assert decisions(*sweep.parts) == []


def test_a_twin_stands_behind_the_trial_whose_training_it_is(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=0, values={"train.lr": str(4 - n)}) for n in range(4)]
    twin = Trial(number=4, bracket=0, values={"train.lr": "2.0"}, same_as=2)
    sweep = FakeSweep(tmp_path / "twins", RATES, loss=by_rate, trials=[*trials, twin])
    sweep.play()
    ranked = standings(*sweep.parts)
    assert [(each.place, each.trial.number) for each in ranked] == [(1, 3), (2, 2), (2, 4), (3, 1), (4, 0)]
    assert ranked[2].score == ranked[1].score


def test_brackets_count_rungs_alike_and_are_ranked_together(tmp_path: Path) -> None:
    trials = [Trial(number=n, bracket=n // 2, values={"train.lr": str(4 - n)}) for n in range(4)]
    sweep = FakeSweep(tmp_path / "brackets", RATES, [[2, 4, 8], [4, 8]], by_rate, trials, brackets=2)
    sweep.play(0)
    sweep.play(1)
    assert [(each.trial.number, each.rung) for each in standings(*sweep.parts)] == [(3, 3), (1, 3), (2, 2), (0, 1)]
    assert [(each.bracket, each.rung) for each in decisions(*sweep.parts)] == [(0, 1), (0, 2), (1, 2)]


def test_a_grid_has_one_rung_and_no_decisions(tmp_path: Path) -> None:
    sweep = FakeSweep(tmp_path / "grid", RATES, [[]], by_rate)
    sweep.play()
    assert [(each.trial.number, each.state) for each in standings(*sweep.parts)] == [
        (number, "finished") for number in (3, 2, 1, 0)
    ]
    assert decisions(*sweep.parts) == []


def test_a_rung_that_was_added_is_trained_from_its_beginning_and_counts_whole(sweep: FakeSweep) -> None:
    sweep.play()
    sweep.record = sweep.record.model_copy(update={"rungs": ((2, 4, 8, 16),)})
    sweep.finish(3, 16)
    best = standings(*sweep.parts)[0]
    assert [(stop.step, stop.begin) for stop in best.stops] == [(2, 0), (4, 2), (8, 4), (16, 0)]
    assert (best.state, best.step, best.updates) == ("finished", 16, 8 + 16)
    assert [best.seconds(stop) for stop in best.stops] == [2, 2, 4, 16]
    assert {point.of for point in best.curve} == {16}
