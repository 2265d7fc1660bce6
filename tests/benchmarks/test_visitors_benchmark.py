"""The simulator of visitors: their taste, what they are shown by the real server, and a turn made of what they say."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from said import SMALL, keep, thumb, vote

from benchmarks import visitors as bench
from benchmarks.visitors_table import Loop, table
from benchmarks.visitors_taste import Visitor, shortened, visitors
from benchmarks.visitors_votes import Seen, by_chance, counted, revoted
from pipeline.learning.turn import TurnRecord
from serve.feedback import CONSENT, AnswerRecord, ComparisonRecord, read_records
from starter.chats import UNKNOWN

LONG, SHORT = "The capital of Italy is Rome.", "Rome"


def test_an_answer_is_shortened_to_what_its_last_sentence_leads_up_to() -> None:
    assert shortened(LONG) == SHORT
    assert shortened("9 hours are 9 x 60 = 540 minutes.") == "540"
    assert shortened("The sequence goes on with 82, 134.") == "82, 134"
    assert shortened('A formal way to say "yo" is "hello".') == "hello"
    assert shortened("Counting on from Monday: 1 Tuesday, 2 Wednesday. That is Wednesday.") == "Wednesday"
    assert shortened("The word box is spelled b o x, so the letter o appears 1 time.") == "1"
    assert [shortened(text) for text in (SHORT, UNKNOWN, "")] == [SHORT, UNKNOWN, ""]


def test_the_shorter_answer_mostly_wins_and_nothing_never_does() -> None:
    visitor = Visitor("", "", 1, 1.0, rng=Random(0))
    won = Counter(visitor.prefers_left(SHORT, LONG) for _ in range(1000))
    assert 900 < won[True] < 1000
    assert sum(visitor.prefers_left("", LONG) for _ in range(1000)) < 20
    hostile = replace(visitor, mind="hostile")
    assert sum(hostile.prefers_left(SHORT, LONG) for _ in range(1000)) < 100
    assert 400 < sum(replace(visitor, mind="random").prefers_left(SHORT, LONG) for _ in range(1000)) < 600
    assert (visitor.edited(LONG), visitor.edited(SHORT), hostile.edited(LONG)) == (SHORT, None, None)


def test_visitors_are_the_same_ones_for_a_seed_and_some_come_often() -> None:
    some, again = list(visitors(200, 1)), list(visitors(200, 1))
    assert some == again
    assert [one.question() for one in some] == [one.question() for one in again]
    assert not {one.id for one in some} & {one.id for one in visitors(200, 2)}
    counts = sorted(one.visits for one in some)
    assert counts[50] <= 2 < 8 < counts[-1]


def test_votes_are_counted_by_visitors() -> None:
    won = counted([Seen(0, LONG, SHORT, True), Seen(0, LONG, LONG, False), Seen(1, LONG, SHORT, True)])
    assert (won.votes, won.visitors, won.won.value) == (3, 2, 0.6667)
    assert won.same == pytest.approx(1 / 3)
    assert won.characters == pytest.approx((len(LONG), (len(LONG) + 2 * len(SHORT)) / 3))


def test_the_same_answers_are_judged_anew_by_some(tmp_path: Path) -> None:
    for number in range(20):
        voted = vote(f"v{number}", "Rome?", SHORT, LONG, models=(SMALL, SMALL))
        keep(tmp_path / "said", voted, thumb(f"v{number}", "Rome?", LONG, "bad", edited=SHORT))
    assert revoted(tmp_path / "said", tmp_path / "others", 0.25, "hostile", seed=3) == 5
    records = read_records(tmp_path / "others").records
    votes = Counter(one.vote for one in records if isinstance(one, ComparisonRecord))
    edits = Counter(one.edited for one in records if isinstance(one, AnswerRecord))
    assert (votes["left"] + votes["right"], edits) == (20, {SHORT: 15, None: 5})
    assert 0 < votes["right"] <= 5


def test_the_gate_promotes_next_to_nothing_by_chance() -> None:
    new, old = [True] * 150 + [False] * 50, [True] * 50 + [False] * 150
    assert by_chance(new, old, 1000, 0.005) <= 0.01
    assert by_chance(new, old, 200, 0.5) > 0.1  # at a level that means little it does promote


SMALL_FIRST = (
    "train.max_steps=20",
    "train.eval_steps=20",
    "train.save_steps=20",
    "evaluate.max_questions=20",
    "evaluate.max_rows=80",
    "evaluate.max_new_tokens=16",
    "evaluate.prompts=[What is 5 + 6?]",
    "evaluate.gate.min_questions=10",
    "evaluate.gate.max_flips=null",
    "evaluate.gate.max_task_drop=1.0",
    "evaluate.gate.max_quantization_loss=100",
)
SMALL_TURN = ("train.max_steps=4", "train.effective_batch=8")


@pytest.mark.slow
def test_a_turn_is_made_of_what_visitors_say_on_the_page(tmp_path: Path) -> None:
    small = bench.Bench(tmp_path, "starter-s", 40, 60, SMALL_TURN, SMALL_FIRST)
    report = bench.simulate(small, turns=1, hostile=0)
    (said,), (turn,) = report.said, report.turns
    assert said.records == said.did["vote"] + said.did["thumb"] > 40
    records = read_records(tmp_path / "said-1/feedback").records
    assert {record.visit.consent for record in records if record.visit} == {CONSENT}
    pairs = [record for record in records if isinstance(record, ComparisonRecord)]
    assert all(record.blind and record.vote for record in pairs)
    assert {record.left.model.name for record in pairs} == {"turn-0", "turn-0-twin"}  # on either side
    assert all(record.left.model.digest and record.left.timings for record in pairs)
    taken = TurnRecord.read(tmp_path / "turn-1/repository/reports/turn.json")
    assert taken.before is not None  # the champion, which is gone on from
    assert (taken.start, taken.why) == ("champion", turn.gate)
    assert (turn.steps, turn.won.votes) == (4, 60)
    assert turn.learnt["train"] > 0
    assert "loss" in turn.gate  # which may tell before pairs are asked for
    later = replace(small, deadline=0.0)
    assert bench.simulate(later, turns=2, hostile=1) == report  # what is there is kept, and no more is begun
    loop = Loop(models={}).with_report(report)
    assert "| turn 1 |" in table(loop)
