"""Counts as they are said."""

from common.words import counted


def test_one_is_one_and_all_else_are_many() -> None:
    assert [counted(count, "test row") for count in (0, 1, 2, 1200)] == [
        "0 test rows",
        "1 test row",
        "2 test rows",
        "1,200 test rows",
    ]
