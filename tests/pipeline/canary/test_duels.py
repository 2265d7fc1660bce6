"""Records as duels of a candidate and the champion."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from said import LARGE, SMALL, keep, thumb, vote

from pipeline.canary.duels import Duel, Heard, Period, hear
from pipeline.learning.forgotten import digest_of_visitor
from pipeline.learning.sources import of_folder
from serve.feedback import ModelVersion, Record, visitor_of

Hears = Callable[..., Heard]
CANDIDATE, CHAMPION = SMALL, LARGE
OTHER = ModelVersion("small", "0123", "Q4_K_M", "small.gguf", "ef" * 32)  # another file of the candidate's name
WHENEVER = Period("2000", "3000")


@pytest.fixture
def hears(tmp_path: Path) -> Hears:
    """Keeps records as the server does, and reads them as duels."""

    def run(*records: Record, period: Period = WHENEVER, per_visitor: int = 5, forgotten: Any = ()) -> Heard:
        keep(tmp_path / "feedback", *records)
        sides = {str(CANDIDATE.digest): "candidate", str(CHAMPION.digest): "champion"}
        return hear(of_folder(tmp_path / "feedback").rows(), sides, period, per_visitor, frozenset(forgotten))  # type: ignore[arg-type]

    return run


def values(heard: Heard) -> list[float]:
    return [duel.value for duel in heard.duels]


def left_out(heard: Heard) -> dict[str, int]:
    return {why: count for why, count in heard.statements.left_out.items() if count}


def test_a_blind_vote_is_for_the_file_that_gave_the_answer_wherever_it_stood(hears: Hears) -> None:
    turned = (CHAMPION, CANDIDATE)
    records = [
        vote("a", "One?", "x", "y", "left"),
        vote("b", "Two?", "x", "y", "left", models=turned),
        vote("c", "Three?", "x", "y", "right", models=turned),
        vote("d", "Four?", "x", "y", "tie"),
        vote("e", "Five?", "x", "y", "both_bad"),
    ]
    heard = hears(*records)
    assert values(heard) == [1, -1, 1, 0, 0]
    assert heard.duels[0] == Duel((records[0].id,), visitor_of("a"), 1.0, is_vote=True)
    assert not left_out(heard)


def test_what_says_nothing_of_the_two_is_left_out_and_counted(hears: Hears) -> None:
    unknown = replace(CANDIDATE, digest=None)
    said = vote("a", "One?", "x", "y")
    heard = hears(
        replace(said, vote="right", time="2999"),
        said,
        vote("b", "Two?", "x", "y", blind=False),
        vote("c", "Three?", "x", "y", models=(OTHER, CHAMPION)),
        vote("d", "Four?", "x", "y", models=(CANDIDATE, CANDIDATE)),
        vote("e", "Five?", "same", "Same"),
        vote("f", "Six?", "x", "y", models=(unknown, CHAMPION)),
        thumb("g", "Seven?", "x", model=OTHER),
        replace(vote("h", "Eight?", "x", "y"), visit=None),
        replace(thumb("i", "Nine?", "x"), verdict=None),
        vote("j", "Ten?", "x", "y"),
        replace(vote("k", "Eleven?", "x", "y"), time="1999"),
        forgotten=[digest_of_visitor(visitor_of("j"))],
    )
    assert values(heard) == [-1]  # of an id the latest
    assert left_out(heard) == {
        "replaced by a later version": 1,
        "a vote that was not blind": 1,
        "of other models": 3,
        "of two answers that are the same": 1,
        "whose model is unknown": 1,
        "without consent": 1,
        "without a judgement, or taken back": 1,
        "of a visitor who is forgotten": 1,
        "from before the canary, or after its last day": 1,
    }


def test_lines_of_another_schema_and_torn_ones_are_left_out(hears: Hears, tmp_path: Path) -> None:
    keep(tmp_path / "feedback", vote("a", "One?", "x", "y"))
    (path,) = (tmp_path / "feedback").iterdir()
    line = path.read_text()
    path.write_text(line + line.replace('"schema": 2', '"schema": 9') + line[:40])
    heard = hears()
    assert values(heard) == [1]
    assert left_out(heard) == {"of another schema": 1, "cannot be read, or is no record": 1}


def test_judged_conversations_meet_in_the_order_of_time(hears: Hears) -> None:
    records = [
        thumb("a", "One?", "x", "good", model=CANDIDATE),
        thumb("b", "Two?", "x", "good", model=CHAMPION),
        thumb("c", "Three?", "x", "bad", model=CHAMPION),
        thumb("d", "Four?", "x", "bad", model=CHAMPION),
        thumb("e", "Five?", "x", "good", model=CANDIDATE),
        thumb("f", "Six?", "x", "bad", model=CHAMPION),
    ]
    heard = hears(*records)
    assert values(heard) == [0, 1]
    assert heard.duels[1] == Duel((records[4].id, records[2].id), visitor_of("e"), 1.0, is_vote=False)
    assert heard.verdicts == {("candidate", True): 2, ("champion", True): 1, ("champion", False): 3}


def test_who_edits_an_answer_finds_it_bad_and_a_conversation_counts_once(hears: Hears) -> None:
    heard = hears(
        thumb("a", "One?", "x", "good", edited="better", model=CANDIDATE, talk="first"),
        thumb("a", "Two?", "x", "good", model=CANDIDATE, talk="first"),
        thumb("b", "One?", "x", None, edited="better", model=CANDIDATE),
        thumb("c", "One?", "x", "good", edited="X", model=CHAMPION),  # as it was
        thumb("d", "One?", "x", "good", model=CHAMPION),
    )
    assert values(heard) == [-1, -1]
    assert left_out(heard) == {"of a conversation that counts already": 1}


def test_one_visitor_counts_for_so_much_and_no_more(hears: Hears) -> None:
    votes = [vote("a", f"Number {number}?", "x", "y") for number in range(9)]
    liked = [thumb("a", "Well?", "x", "bad", model=CHAMPION, talk=f"talk {number}") for number in range(9)]
    heard = hears(*votes, *liked, per_visitor=3)
    assert values(heard) == [1, 1, 1]
    assert heard.verdicts == {("champion", False): 3}
    assert left_out(heard) == {"beyond what one visitor's may count": 12}


def test_hostile_visitors_move_it_by_their_number_and_not_by_their_votes(hears: Hears) -> None:
    """A tenth of them, of whom each votes fifty times as often."""
    honest = [vote(f"v{number}", "Which?", "x", "y") for number in range(18)]
    hostile = [vote(f"h{number % 2}", f"{number}?", "x", "y", "right") for number in range(100)]
    assert sum(values(hears(*honest, *hostile, per_visitor=1))) == 16
