"""What visitors voted, read from the chat's own feedback, and how far a judge agrees."""

import logging
from pathlib import Path

import pytest
from judge_server import ASKED, comparison, kept

from common.errors import UserError
from pipeline.judging.judge import agreed, summary
from pipeline.judging.pairs import Judged, Outcome
from pipeline.judging.votes import kappa, read_votes
from serve.feedback.records import Answer, AnswerRecord, ModelVersion


def test_blind_votes_are_read_as_the_chat_keeps_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    times = {number: f"2026-01-0{number}T00:00:00" for number in range(1, 8)}
    first = comparison("left", time=times[1])
    records = [
        first,
        comparison("both_bad", "Rot", "Blau", time=times[2]),
        comparison("right", blind=False, time=times[3]),
        comparison(None, time=times[4]),
        AnswerRecord(messages=ASKED, sampling={}, answer=Answer("Red", ModelVersion("a")), verdict="good"),
        comparison("right", id=first.id, time=times[5]),  # who has changed his mind
    ]
    folder = kept(tmp_path / "feedback", records)
    (folder / "feedback-damaged.jsonl").write_text('{"schema": 1, "id"\n{"schema": 9}\n')
    found = read_votes(folder, None)
    assert [(vote.pair.one, vote.won) for vote in found] == [("Red", "other"), ("Rot", "tie")]
    assert found[0].pair.asked == ASKED
    assert "2 blind votes; not used are 4 other records and 2 damaged ones" in caplog.text
    assert read_votes(folder, 1) == found[:1]


def test_feedback_without_a_blind_vote_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"which has no blind vote; name the chat's feedback, or null"):
        read_votes(kept(tmp_path / "feedback", [comparison("left", blind=False)]), None)


def test_kappa_is_what_chance_does_not_explain() -> None:
    same: list[tuple[Outcome, Outcome]] = [("one", "one"), ("other", "other")]
    crossed: list[tuple[Outcome, Outcome]] = [("one", "other"), ("other", "one")]
    assert kappa(same) == 1
    assert kappa(crossed) == -1
    assert kappa(same + crossed) == 0
    assert kappa([("tie", "tie")]) is None
    # 6 of 8 agree; by chance 5/8 * 5/8 + 3/8 * 3/8 = 34/64 would
    skewed: list[tuple[Outcome, Outcome]] = [("one", "one")] * 4 + [("other", "other")] * 2 + crossed
    assert kappa(skewed) == pytest.approx((0.75 - 34 / 64) / (1 - 34 / 64))


def test_agreement_is_of_what_the_judge_can_be_understood_in() -> None:
    said = [Judged("one"), Judged("tie"), Judged(None)]
    found = agreed(said, ["one", "one", "one"])
    assert (found.votes, found.unclear, found.agreed, found.kappa) == (3, 1, 0.5, 0)
    assert found.agreed_low is not None
    assert found.agreed_high is not None
    assert found.agreed_low <= 0.5 <= found.agreed_high
    assert agreed([Judged(None)], ["one"]).agreed is None


def test_what_tuned_won_has_bounds_that_close_in() -> None:
    few = summary("judge", [Judged("one")] * 5, None)
    many = summary("judge", [Judged("one")] * 60 + [Judged("tie")] * 30 + [Judged("other")] * 10 + [Judged(None)], None)
    assert (few.won, many.won) == (1.0, 0.75)
    assert None not in (few.won_low, many.won_low)
    assert few.won_low < 0.5 < many.won_low < 0.75 < many.won_high < 1  # type: ignore[operator]
    assert many.outcomes.count("unclear") == 1
    assert summary("judge", [Judged(None)], None).won is None
