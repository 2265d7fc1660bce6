"""The evaluation for people: a page, Markdown, a picture, and series for `dvc plots`, all of one record."""

from pathlib import Path

from common.files import write_text
from pipeline.report.markdown import markdown
from pipeline.report.page import page
from pipeline.report.picture import draw
from pipeline.report.record import Evaluation
from pipeline.report.series import ggufs_csv, lengths_csv


def write(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write evaluation.html, evaluation.md, evaluation.png, lengths.csv and gguf.csv into `folder`.

    Args:
        evaluation: what reports/evaluation.json holds.
        folder: usually reports/; files of these names are replaced, each at once.

    Returns:
        The paths written.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    texts = {
        "evaluation.html": page(evaluation),
        "evaluation.md": markdown(evaluation),
        "lengths.csv": lengths_csv(evaluation.lengths),
        "gguf.csv": ggufs_csv(evaluation.gguf),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    draw(folder / "evaluation.png", evaluation)
    return [folder / name for name in (*texts, "evaluation.png")]
