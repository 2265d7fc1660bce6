"""Prepared data as the model will read it: what of it is learnt, where it is cut, and what a split comes to.

tunesmith data look                                five conversations of train, and its summary
tunesmith data look model=qwen3-0.6b --row 12      one, by another model's template
tunesmith data look --html look.html               the same, as a page
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
from rich.console import Console

from common.errors import UserError
from common.files import write_text
from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, load
from pipeline.core.data_settings import DataSettings
from pipeline.core.paths import PREPARED
from pipeline.data.prepared import require_prepared
from pipeline.look import terminal
from pipeline.look.measure import measure
from pipeline.look.page import page
from pipeline.look.rows import Reading, read_conversation
from pipeline.look.summary import summarize
from pipeline.look.words import summary_lines
from pipeline.models.chat import load_tokenizer
from pipeline.models.turns import Message


def run(
    overrides: Sequence[str], split: str, rows: int, seed: int, chosen: Sequence[int] = (), html: Path | None = None
) -> None:
    """Show conversations of a prepared split, then what the split comes to.

    Args:
        overrides: settings, as in conf/.
        split: `train`, `validation` or `test`.
        rows: how many conversations, drawn by `seed`.
        seed: of the draw.
        chosen: numbers of conversations from 1, instead of a draw.
        html: a page to write, instead of showing the conversations in the terminal.

    Raises:
        UserError: the split is missing, has no such row, the tokenizer cannot be had, or the page not be written.
    """
    config = load(compose(CONF, list(overrides)))
    if html and html.is_dir():
        raise UserError(f"{html} is a folder; name a file for the page, such as {html / 'look.html'}")
    path = PREPARED / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    table = pq.read_table(path, columns=["messages"])
    numbers = _numbers(path, table.num_rows, rows, seed, chosen)
    chats: list[list[Message]] = [table["messages"][number - 1].as_py() for number in numbers]
    reading = _reading(config, split)
    console = Console(highlight=False, markup=False)
    if differs := _difference(config.data):
        console.print(f"note: {differs}\n", soft_wrap=True)
    conversations = [read_conversation(reading, *pair) for pair in zip(numbers, chats, strict=True)]
    if not html:
        terminal.show(console, conversations, table.num_rows, reading)
        console.print()
    figures = measure(path, reading)
    summary = summarize(split, config.model.name, reading, figures)
    console.print("\n".join(summary_lines(summary)), soft_wrap=True)
    if html:
        lengths = [one["longest"] for one in figures if not one["refused"]]
        _write(html, page(summary, lengths, conversations, reading))
        console.print(f"page: {html}", soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _numbers(path: Path, total: int, rows: int, seed: int, chosen: Sequence[int]) -> list[int]:
    if beyond := [number for number in chosen if number > total]:
        raise UserError(f"{path} has {total} rows, and no row {beyond[0]}")
    return list(chosen) or sorted(Random(seed).sample(range(1, total + 1), min(rows, total)))


def _reading(config: Config, split: str) -> Reading:
    tokenizer, loss_on = load_tokenizer(config.model), config.train.loss_on
    if split == "test":
        return Reading(tokenizer, config.evaluate.max_length, "evaluate.max_length", loss_on)
    return Reading(tokenizer, config.train.max_length, "train.max_length", loss_on)


def _difference(settings: DataSettings) -> str:
    """Return in what the prepared data is not what the settings ask for; nothing where it is."""
    try:
        require_prepared(settings)
    except UserError as differs:
        return str(differs)
    return ""
