"""The evaluation for people: a page, Markdown, a picture, and series for `dvc plots`, all of one dictionary."""

from pathlib import Path
from typing import Any

from pipeline.evaluation.report.markdown import markdown
from pipeline.evaluation.report.page import page
from pipeline.evaluation.report.picture import draw
from pipeline.evaluation.report.series import ggufs_csv, lengths_csv
from pipeline.files import write_text

__all__ = ["write"]


def write(evaluation: dict[str, Any], folder: Path) -> list[Path]:
    """Writes evaluation.html, evaluation.md, evaluation.png, lengths.csv and gguf.csv into `folder`.

    Args:
        evaluation: the contents of reports/evaluation.json.
        folder: usually reports/; files of these names are replaced, each at once.

    Returns:
        The paths written.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    texts = {
        "evaluation.html": page(evaluation),
        "evaluation.md": markdown(evaluation),
        "lengths.csv": lengths_csv(evaluation["lengths"]),
        "gguf.csv": ggufs_csv(evaluation["gguf"]),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    draw(folder / "evaluation.png", evaluation)
    return [folder / name for name in (*texts, "evaluation.png")]
