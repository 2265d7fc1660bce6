"""Prepared data as the model will read it: what of it is learnt, where it is cut, and what a split comes to.

tunesmith data look                                five conversations of train, and its summary
tunesmith data look model=qwen3-0.6b --row 12      one, by another model's template
tunesmith data look --html look.html               the same, as a page
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
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
from pipeline.models.chat import ENDLESS, load_tokenizer
from pipeline.models.turns import Message


def run(
    overrides: Sequence[str],
    split: str,
    rows: int,
    seed: int,
    chosen: Sequence[int] = (),
    html: Path | None = None,
    source: str | None = None,
) -> None:
    """Show conversations of a prepared split, then what the split comes to.

    Args:
        overrides: settings, as in conf/.
        split: `train`, `validation` or `test`.
        rows: how many conversations, drawn by `seed`.
        seed: of the draw.
        chosen: numbers of conversations from 1, instead of a draw.
        html: a page to write, instead of showing the conversations in the terminal.
        source: one of data.sources, whose conversations alone are drawn and summed up.

    Raises:
        UserError: the split is missing, has no such row, the tokenizer cannot be had, or the page not be written.
    """
    config = load(compose(CONF, list(overrides)))
    if html and html.is_dir():
        raise UserError(f"{html} is a folder; name a file for the page, such as {html / 'look.html'}")
    path = PREPARED / f"{split}.parquet"
    if not path.is_file():
        raise UserError(f"{path} is missing; run `dvc repro prepare` first")
    table = pq.read_table(path)
    there = _of_source(table, path, source)
    numbers = _numbers(path, table.num_rows, rows, seed, chosen, there)
    chats: list[list[Message]] = [table["messages"][number - 1].as_py() for number in numbers]
    reading = _reading(config, split)
    console = Console(highlight=False, markup=False)
    if differs := _difference(config.data):
        console.print(f"note: {differs}\n", soft_wrap=True)
    conversations = [read_conversation(reading, *pair) for pair in zip(numbers, chats, strict=True)]
    if not html:
        terminal.show(console, conversations, table.num_rows, reading)
        console.print()
    every = measure(path, reading)
    figures = {number: every[number - 1] for number in there}
    summary = summarize(f"{split}, {source}" if source else split, config.model.name, reading, figures)
    console.print("\n".join(summary_lines(summary)), soft_wrap=True)
    if html:
        lengths = [one["longest"] for one in figures.values() if not one["refused"]]
        _write(html, page(summary, lengths, conversations, reading))
        console.print(f"page: {html}", soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _of_source(table: pa.Table, path: Path, source: str | None) -> list[int]:
    """Return the numbers of a source's conversations, from 1; all where none is named."""
    if source is None:
        return list(range(1, table.num_rows + 1))
    names = table["source"].to_pylist() if "source" in table.column_names else []
    if source not in names:
        known = f"has {', '.join(sorted(set(names)))}" if names else "is of a set without data.sources"
        raise UserError(f"{path} has no row of the source {source}; it {known}")
    return [number for number, name in enumerate(names, 1) if name == source]


def _numbers(path: Path, total: int, rows: int, seed: int, chosen: Sequence[int], there: Sequence[int]) -> list[int]:
    if beyond := [number for number in chosen if number > total]:
        raise UserError(f"{path} has {total} rows, and no row {beyond[0]}")
    return list(chosen) or sorted(Random(seed).sample(there, min(rows, len(there))))


def _reading(config: Config, split: str) -> Reading:
    tokenizer, loss_on = load_tokenizer(config.model), config.train.loss_on
    tokenizer.model_max_length = ENDLESS  # of which it else warns among the rows
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
