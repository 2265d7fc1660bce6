"""The record of rows: what tells them apart, and what its readers presume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.records import UnreadableError
from pipeline.report.rows import RowResults, digests

SAID = [{"role": "user", "content": "Héllo"}, {"role": "assistant", "content": "Hi"}]
TREE: dict[str, Any] = {
    "schema_version": 1,
    "rows": ["a", "b", "c"],
    "tokens": [5, 7, 2],
    "questions": ["q", "r"],
    "groups": ["held_out", "held_out"],
    "tasks": ["sum", "sum"],
    "models": {"base": {"nats": [1.5, None, 2.0], "right": [True]}, "F16": {"nats": [1.0], "items": {"arc": [1.0]}}},
}


def test_rows_are_told_apart_by_what_they_say_and_not_by_the_order_of_keys() -> None:
    again = [dict(reversed(message.items())) for message in SAID]
    other = [SAID[0], SAID[1] | {"content": "Ho"}]
    first, same, changed = (digests([content])[0] for content in (SAID, again, other))
    assert first == same != changed
    assert len(first) == 16


def test_a_row_that_comes_again_has_its_number() -> None:
    (once,) = digests([SAID])
    assert digests([SAID, "other", SAID, SAID])[::2] == (once, f"{once}-2")
    assert digests([SAID, SAID, SAID])[2] == f"{once}-3"


def test_what_is_written_is_read_as_it_was(tmp_path: Path) -> None:
    found = RowResults.parse(TREE, "here")
    found.write(tmp_path / "rows.json")
    assert RowResults.read(tmp_path / "rows.json") == found
    assert found.models["base"].nats == (1.5, None, 2.0)
    assert found.models["F16"].right == ()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t["rows"].append("a"), "rows: a is listed twice"),
        (lambda t: t.update(questions=["q", "q"]), "questions: q is listed twice"),
        (lambda t: t["tokens"].pop(), "tokens: 2 of them to 3 rows"),
        (lambda t: t["groups"].append("unasked"), "groups: 3 of them to 2 questions"),
        (lambda t: t.update(tasks=[]), "tasks: 0 of them to 2 questions"),
        (lambda t: t["models"]["base"]["nats"].append(1), "models.base.nats: 4 of them to 3 rows"),
        (lambda t: t["models"]["F16"].update(right=[True] * 3), "models.F16.right: 3 of them to 2 questions"),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(spoil: Callable[[dict[str, Any]], object], said: str) -> None:
    tree = RowResults.parse(TREE, "here").tree()
    spoil(tree)
    with pytest.raises(UnreadableError) as raised:
        RowResults.parse(tree, "rows.json")
    assert str(raised.value) == (
        f"rows.json does not hold what it should: {said}; make it again: `dvc repro -sf evaluate`"
    )
