"""How much settings matter, where it is known how much."""

import random

import pytest

from pipeline.sweep_report.dimensions import Setting
from pipeline.sweep_report.importance import LEAST, importance
from pipeline.sweep_report.record import StopFigures, TrialFigures

SETTINGS = [Setting("lr", "lr", ("1", "2", "3", "4")), Setting("r", "r", ("4", "8", "16"))]


def trials(count: int, of_rate: float, of_rank: float, of_chance: float = 0.0) -> list[TrialFigures]:
    """Return trials whose score is a sum of what their settings and chance do to it."""
    chance, made = random.Random(0), []
    for number in range(count):
        values = {"lr": SETTINGS[0].values[number % 4], "r": SETTINGS[1].values[number % 3]}
        score = of_rate * int(values["lr"]) + of_rank * int(values["r"]) / 4 + of_chance * chance.random()
        made.append(trial(number, values, score))
    return made


def trial(number: int, values: dict[str, str], score: float | None) -> TrialFigures:
    """Return a trial with one stop, at step 2; without a score it failed there."""
    stop = StopFigures(step=2, score=score, validation_loss=score)
    return TrialFigures(
        number=number,
        place=number + 1,
        bracket=0,
        values=values,
        same_as=None,
        state="finished" if score is not None else "failed",
        rung=1,
        reason=None,
        score=score,
        validation_loss=score,
        step=2,
        updates=2,
        seconds=1,
        stops=(stop,),
        curve=(),
    )


def test_what_moves_the_score_most_comes_first_and_is_sure() -> None:
    found = importance(trials(48, of_rate=5, of_rank=1), SETTINGS, 2)
    assert [each.key for each in found.influences] == ["lr", "r"]
    assert all(each.is_sure for each in found.influences)
    assert found.explained is not None
    assert found.explained > 0.8


def test_shares_of_settings_that_add_up_come_to_about_the_whole() -> None:
    found = importance(trials(96, of_rate=1, of_rank=1), SETTINGS, 2)
    assert sum(each.share for each in found.influences) == pytest.approx(1, abs=0.15)


def test_what_does_nothing_cannot_be_told_from_nothing() -> None:
    found = importance(trials(48, of_rate=5, of_rank=0, of_chance=1), SETTINGS, 2)
    assert [(each.key, each.is_sure) for each in found.influences] == [("lr", True), ("r", False)]


def test_chance_alone_has_no_importances() -> None:
    found = importance(trials(48, of_rate=0, of_rank=0, of_chance=1), SETTINGS, 2)
    assert found.influences == ()
    assert found.untold == "a forest foretells the ranks no better than their mean does"


def test_few_trials_say_nothing() -> None:
    found = importance(trials(LEAST - 1, of_rate=5, of_rank=1), SETTINGS, 2)
    assert (found.influences, found.untold) == ((), "9 trials are too few; it takes 10")


def test_trials_that_do_not_differ_say_nothing() -> None:
    same = [trial(number, {"lr": "1", "r": "4"}, float(number)) for number in range(20)]
    assert importance(same, SETTINGS, 2).untold == "its trials do not differ"


def test_a_setting_that_makes_trials_fail_matters() -> None:
    made = [trial(n, {"lr": str(n % 4 + 1), "r": "4"}, None if n % 4 == 3 else 1.0) for n in range(40)]
    found = importance(made, SETTINGS, 2)
    assert [(each.key, each.is_sure) for each in found.influences] == [("lr", True)]


def test_the_same_trials_give_the_same_figures() -> None:
    assert importance(trials(24, 5, 1, 1), SETTINGS, 2) == importance(trials(24, 5, 1, 1), SETTINGS, 2)
