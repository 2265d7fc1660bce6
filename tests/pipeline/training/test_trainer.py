"""The order in which rows are drawn."""

from pipeline.training.trainer import SortedWithinUpdates

LENGTHS = [7, 3, 9, 1, 4, 8, 2, 6, 5, 10]


def test_each_epoch_draws_every_row_once() -> None:
    sampler = SortedWithinUpdates(LENGTHS, update_size=4, seed=0)
    assert sorted(sampler) == list(range(10))
    assert len(sampler) == 10


def test_the_rows_of_an_update_stand_longest_first() -> None:
    drawn = [LENGTHS[row] for row in SortedWithinUpdates(LENGTHS, update_size=4, seed=0)]
    for start in (0, 4, 8):
        assert drawn[start : start + 4] == sorted(drawn[start : start + 4], reverse=True)
    assert drawn != sorted(drawn, reverse=True)


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    first, again = (SortedWithinUpdates(LENGTHS, update_size=4, seed=0) for _ in range(2))
    zeroth = list(first)
    first.set_epoch(3)
    again.set_epoch(3)
    assert list(first) == list(again) != zeroth
    assert list(SortedWithinUpdates(LENGTHS, update_size=4, seed=1)) != zeroth
