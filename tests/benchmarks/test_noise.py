"""benchmarks/noise.py: an answer may part from the one alone where two logits tie, and nowhere else."""

import numpy as np
import pytest

from benchmarks.noise import Alone

LOGITS = np.array([[3.0, 1.0, 0.0], [2.0, 2.5, 0.0], [1.0, 9.0, 0.0]])  # after the second token the end was drawn
ALONE = Alone([], [0, 1], ["so", "so be"], list(LOGITS))


@pytest.mark.parametrize(
    ("answer", "whole", "token"),
    [
        ("so be", True, None),
        ("so", False, None),  # its reader left
        ("s", False, None),
        ("so", True, 1),  # it ended there
        ("so it", True, 1),
        ("so it", False, 1),
        ("no", True, 0),
        ("so be it", True, 2),  # it did not end there
    ],
)
def test_where_an_answer_parts(answer: str, whole: bool, token: int | None) -> None:
    assert ALONE.parting(answer, whole) == token


@pytest.mark.parametrize(("noise", "ties"), [(0.4, False), (0.6, True)])
def test_a_tie_is_closer_than_the_noise(noise: float, ties: bool) -> None:
    assert ALONE.margin(1) == 0.5
    assert ALONE.ties("so it", noise) is ties
    assert not ALONE.ties("no", noise)
    assert ALONE.ties("so be", noise)
