import random

from benchmarks.prepare import accuracy, conversations, exact, ours, steps
from pipeline.data.folding import fold


def test_planted_near_duplicates_are_found_and_no_others() -> None:
    rows = conversations(1500, random.Random(1))
    prompts = [fold(row[0]["content"]) for row in rows]
    right = exact(prompts)
    result = accuracy(ours(prompts), right)
    assert len(right) > 60
    assert result["recall"] >= 0.97
    assert result["precision"] >= 0.99


def test_each_step_is_timed() -> None:
    assert len(steps(conversations(300, random.Random(1)))) == 4
