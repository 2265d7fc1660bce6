"""The page of Markdown holds every figure, and no reply breaks its tables."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluation.report import draw, markdown

PROMPT = "What | is\n1 < 2?"
REPLIES = {"base": "a|b\nc\\d", "tuned": "<b>|</b>\r\n\n"}


def metrics(questions: bool = True) -> dict[str, Any]:
    figures: dict[str, Any] = {
        name: {"loss": loss, "perplexity": 2.5, "samples_per_second": 30.0}
        for name, loss in (("base", 4.25), ("tuned", 0.125))
    }
    if questions:
        for name, share in (("base", 0.0), ("tuned", 0.925)):
            figures[name]["accuracy"] = share
            figures[name]["accuracy_by_group"] = {"held_out": share}
            figures[name]["accuracy_by_task"] = {"held_out/sum": share}
    gguf = {"loss": 0.126, "perplexity": 1.1343, "bytes": 12_345_678, "tokens_per_second": 1234.5}
    return figures | {"gguf": {"Q8_0": gguf}}


def page(questions: bool = True) -> str:
    answers = {name: [{"reply": reply, "seconds": 0.5, "tokens_per_second": 20.0}] for name, reply in REPLIES.items()}
    return markdown(metrics(questions), [PROMPT], answers, "starter-s")


def cells(line: str) -> list[str]:
    """A table row's cells as a Markdown reader tells them apart: at pipes that no backslash stands before."""
    parts, escaped = [""], False
    for character in line.strip().removeprefix("|").removesuffix("|"):
        if character == "|" and not escaped:
            parts.append("")
        else:
            parts[-1] += character
        escaped = character == "\\" and not escaped
    return [part.strip() for part in parts]


def test_pipes_line_breaks_tags_and_backslashes_stay_within_their_cells() -> None:
    lines = page().split("## Answers\n")[1].strip().splitlines()
    assert len(lines) == 3  # head, rule, the one prompt
    row = cells(lines[2])
    assert len(row) == len(cells(lines[0])) == len(cells(lines[1])) == 7
    assert row[0] == r"What \| is<br>1 &lt; 2?"
    assert row[1] == r"a\|b<br>c\\d"
    assert row[4].startswith(r"&lt;b>\|&lt;/b>")
    assert "\r" not in page()


def test_every_table_has_as_many_cells_in_each_row() -> None:
    tables: list[list[str]] = [[]]
    for line in page().splitlines():
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    tables = [table for table in tables if table]
    assert len(tables) == 4
    for table in tables:
        assert len({len(cells(line)) for line in table}) == 1


def test_figures_stand_beside_each_other() -> None:
    text = page()
    assert text.startswith("# Evaluation of starter-s\n")
    for line in (
        "| loss | 4.2500 | 0.1250 |",
        "| accuracy, held out | 0.0% | 92.5% |",
        "| held_out/sum | 0.0% | 92.5% |",
        "| Q8_0 | 12.3 | 0.1260 | 1.1343 | 1,234.5 |",
    ):
        assert line in text


def test_without_questions_there_is_no_accuracy() -> None:
    assert "accuracy" not in page(questions=False).casefold()


@pytest.mark.parametrize("questions", [True, False])
def test_the_picture_is_a_png(tmp_path: Path, questions: bool) -> None:
    draw(tmp_path / "reports/plot.png", metrics(questions))
    assert (tmp_path / "reports/plot.png").read_bytes().startswith(b"\x89PNG\r\n")
