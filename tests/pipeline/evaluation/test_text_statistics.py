"""Figures of replies, counted by hand."""

import pytest

from pipeline.evaluation.answers import Reply
from pipeline.evaluation.text_statistics import text_figures


def replies(*texts: str) -> list[Reply]:
    return [{"reply": text, "tokens": 2 * len(text.split())} for text in texts]


def test_replies_that_say_the_same_are_not_diverse() -> None:
    found = text_figures(replies("the sky is blue", "the sky is blue"))
    assert found == {"mean_tokens": 8, "distinct_1": 0.5, "distinct_2": 0.5, "repetition": 0}


def test_pairs_are_of_neighbours_within_a_reply() -> None:
    found = text_figures(replies("a b a b", "b a"))  # a b, b a, a b; b a
    assert found["distinct_1"] == pytest.approx(2 / 6)
    assert found["distinct_2"] == pytest.approx(2 / 4)


def test_a_reply_that_goes_round_in_circles_repeats() -> None:
    # 9 words have 6 runs of four: abca bcab cabc abca bcab cabc, of which 3 are new. The other reply is too short.
    assert text_figures(replies("a b c a b c a b c", "a b"))["repetition"] == pytest.approx(0.5)


@pytest.mark.parametrize("said", [(), ("",)])
def test_nothing_said_is_zero(said: tuple[str, ...]) -> None:
    assert set(text_figures(replies(*said)).values()) == {0}
