"""Which of two replies is better: both orders, what a judge may say, and what is kept of it."""

import logging
from pathlib import Path

import pytest
from judge_server import at, judge_server, prefers
from servers import started_server
from tiny_gguf import write_scripted

from common.errors import UserError
from pipeline.evaluation.measurement_cache import MeasurementCache
from pipeline.judging import endpoint as module
from pipeline.judging.pairs import Judged, Pair, both, judged, verdict

ASKED = [{"role": "user", "content": "Name a colour."}]
GOOD_AND_BAD = [Pair(ASKED, f"good {number}", f"bad {number}") for number in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> MeasurementCache:
    return MeasurementCache(tmp_path, "adapter")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"better": "A"}', "A"),
        ('I think so.\n```json\n{"better": "B"}\n```', "B"),
        ('<think>{"better": "A"}? No.</think>{"better": "tie"}', "tie"),
        (" B.\n", "B"),
        ("**Tie**", "tie"),
        ("", None),
        ("A is better than B", None),
        ("a", None),
        ('{"better": "C"}', None),
        ('{"better": "A"} or {"better": "B"}', None),
        ('{"better": ["A"]}', None),
        ('{"best": "A"}', None),
    ],
)
def test_a_verdict_is_read_strictly(text: str, said: str | None) -> None:
    assert verdict(text) == said


def test_one_is_better_only_where_it_is_in_both_places() -> None:
    assert both("A", "B") == Judged("one")
    assert both("B", "A") == Judged("other")
    assert both("tie", "tie") == Judged("tie")
    assert both("A", "tie") == Judged("tie")
    assert both("A", "A") == both("B", "B") == Judged("tie", by_place=True)
    assert both(None, "A") == both("A", None) == Judged(None)


def test_a_judge_with_a_mind_finds_the_better_reply_in_either_place(cache: MeasurementCache) -> None:
    pairs = [*GOOD_AND_BAD, Pair(ASKED, "bad", "good"), Pair(ASKED, "good", "good, too"), Pair(ASKED, "same", "same")]
    with judge_server(prefers("good")) as judge:
        found = judged(pairs, at(judge.url), cache, "judge")
        assert [one.outcome for one in found] == ["one"] * 4 + ["other", "tie", "tie"]
        assert len(judge.asked) == 12  # the two that are the same need no judge
        assert "Name a colour." in judge.asked[0]["messages"][1]["content"]


def test_a_judge_that_goes_by_places_decides_nothing(cache: MeasurementCache) -> None:
    with judge_server(lambda text, before: '{"better": "A"}') as judge:
        assert judged(GOOD_AND_BAD, at(judge.url), cache, "judge") == [Judged("tie", by_place=True)] * 4


def test_what_cannot_be_read_is_counted_and_said(cache: MeasurementCache, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with judge_server(lambda text, before: "Both have merit." if "good 2" in text else "tie") as judge:
        found = judged(GOOD_AND_BAD, at(judge.url), cache, "judge")
    assert [one.outcome for one in found] == ["tie", "tie", None, "tie"]
    assert "judge: 2 answers of the judge, of 8, cannot be read" in caplog.text


def test_what_a_judge_has_said_before_it_failed_is_not_asked_again(
    cache: MeasurementCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITS", (0.0,))
    with judge_server(lambda text, before: (500, "down") if before >= 5 else prefers("good")(text, before)) as judge:
        with pytest.raises(UserError, match="what it has answered is kept"):
            judged(GOOD_AND_BAD, at(judge.url), cache, "judge")
        judge.says = prefers("good")
        before = len(judge.asked)
        assert [one.outcome for one in judged(GOOD_AND_BAD, at(judge.url), cache, "judge")] == ["one"] * 4
        assert len(judge.asked) - before == 3
        judged(GOOD_AND_BAD, at(judge.url), cache, "judge")
        assert len(judge.asked) - before == 3
        judged(GOOD_AND_BAD, at(judge.url, model="another"), cache, "judge")  # which has said nothing yet
        assert len(judge.asked) - before == 3 + 8


def test_the_chat_server_is_a_judge_like_any_other(tmp_path: Path, cache: MeasurementCache) -> None:
    write_scripted(tmp_path / "models/judge.gguf", [b'{"better"', b': "A"', b"}"], context=8192)
    with started_server(tmp_path / "log.txt", models=tmp_path / "models", model="judge") as (url, _):
        found = judged(GOOD_AND_BAD[:2], at(f"{url}/v1", model="judge"), cache, "judge")
    assert found == [Judged("tie", by_place=True)] * 2
