"""What the evaluation's benchmark draws and adds up."""

import pytest

from benchmarks.evaluate import both, spread


def test_the_sample_is_spread_over_the_lengths() -> None:
    lengths = [50, 10, 40, 20, 30, 60]
    assert [lengths[index] for index in spread(lengths, 3)] == [20, 40, 60]
    assert sorted(spread(lengths, 99)) == [0, 1, 2, 3, 4, 5]
    assert spread(lengths, 1) == [2]


def test_a_loss_and_an_answer_take_their_time_one_after_the_other() -> None:
    def part(batched: float, one_by_one: float) -> dict:
        speeds = {"batched": batched, "one_by_one": one_by_one}
        return {
            way: {"conversations_per_second": speed, "rows": 4, "peak_memory_gib": None}
            for way, speed in speeds.items()
        }

    found = both(part(20, 4), part(5, 1))
    assert found["batched"]["conversations_per_second"] == pytest.approx(4)
    assert found["one_by_one"]["conversations_per_second"] == pytest.approx(0.8)
    assert found["ratio"] == pytest.approx(5)
