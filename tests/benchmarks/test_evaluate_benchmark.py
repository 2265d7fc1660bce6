"""What the evaluation's benchmark draws and adds up."""

from benchmarks.evaluate import spread


def test_the_sample_is_spread_over_the_lengths() -> None:
    lengths = [50, 10, 40, 20, 30, 60]
    assert [lengths[index] for index in spread(lengths, 3)] == [20, 40, 60]
    assert sorted(spread(lengths, 99)) == [0, 1, 2, 3, 4, 5]
    assert spread(lengths, 1) == [2]
