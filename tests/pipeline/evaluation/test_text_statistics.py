"""Figures of replies, counted by hand."""

from collections.abc import Sequence

import pytest

from pipeline.evaluation.answers import Reply
from pipeline.evaluation.text_statistics import text_figures


def replies(*texts: str) -> list[Reply]:
    return [{"reply": text, "tokens": 2 * len(text.split())} for text in texts]


def figures(*texts: str, asked: Sequence[str | None] | None = None) -> dict[str, float | None]:
    return text_figures(replies(*texts), asked or [None] * len(texts))


def test_replies_that_say_the_same_are_not_diverse() -> None:
    found = figures("the sky is blue", "the sky is blue")
    told = {"mean_tokens": 8, "distinct_1": 0.5, "distinct_2": 0.5, "repetition": 0}
    assert found == told | {"refusals": 0, "language_kept": None}


def test_pairs_are_of_neighbours_within_a_reply() -> None:
    found = figures("a b a b", "b a")  # a b, b a, a b; b a
    assert found["distinct_1"] == pytest.approx(2 / 6)
    assert found["distinct_2"] == pytest.approx(2 / 4)


def test_a_reply_that_goes_round_in_circles_repeats() -> None:
    # 9 words have 6 runs of four: abca bcab cabc abca bcab cabc, of which 3 are new. The other reply is too short.
    assert figures("a b c a b c a b c", "a b")["repetition"] == pytest.approx(0.5)


@pytest.mark.parametrize("said", [(), ("",)])
def test_nothing_said_is_zero(said: tuple[str, ...]) -> None:
    assert set(figures(*said).values()) == {0, None}
    assert figures(*said)["language_kept"] is None


def test_replies_that_decline_are_counted() -> None:
    assert figures("I'm sorry, but I cannot help with that.", "It is Paris.")["refusals"] == 0.5


def test_a_language_is_kept_where_both_sides_say_enough_to_tell() -> None:
    german, english = "Warum ist der Himmel am Tag eigentlich blau?", "Why does the sky look blue during the day?"
    asked = [german, german, english, "5 + 6?", None]
    said = [
        "Weil das blaue Licht am meisten gestreut wird.",
        "Because blue light is scattered more than the rest.",
        "11",
        "That makes eleven, as everybody knows.",
        "Weil das blaue Licht am meisten gestreut wird.",
    ]
    assert figures(*said, asked=asked)["language_kept"] == 0.5
