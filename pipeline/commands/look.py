"""Prepared data as the model will read it: what of it is learnt, where it is cut, and what a split comes to.

tunesmith data look                                five conversations of train, and its summary
tunesmith data look model=qwen3-0.6b --row 12      one, by another model's template
tunesmith data look --html look.html               the same, as a page
tunesmith data look --preferences                  what is compared or judged: chosen beside rejected, good or bad
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
from pipeline.core.paths import COMPARED, PREPARED
from pipeline.data.prepared import require_prepared
from pipeline.look import terminal
from pipeline.look.compared import Compared, compared
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
    preferences: bool = False,
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
        preferences: look at the answers that are compared or judged, a conversation each; a pair's two stand together.

    Raises:
        UserError: the split is missing, has no such row, the tokenizer cannot be had, or the page not be written.
    """
    config = load(compose(CONF, list(overrides)))
    if html and html.is_dir():
        raise UserError(f"{html} is a folder; name a file for the page, such as {html / 'look.html'}")
    path, others = PREPARED / f"{split}.parquet", PREPARED / COMPARED / f"{split}.parquet"
    path = others if preferences else path
    _require(path, preferences, source)
    table = pq.read_table(path)
    there, answers = _of_source(table, path, source), _compared(table) if preferences else None
    first = [numbers[0] for numbers in answers.together] if answers else there
    numbers = _numbers(path, table.num_rows, rows, seed, chosen, first)
    numbers, names = (answers.beside(numbers), answers.names) if answers else (numbers, {})
    chats: list[list[Message]] = [table["messages"][number - 1].as_py() for number in numbers]
    reading = _reading(config, split, "all" if preferences else config.train.loss_on)
    console = Console(highlight=False, markup=False)
    if differs := _difference(config.data):
        console.print(f"note: {differs}\n", soft_wrap=True)
    read = zip(numbers, chats, strict=True)
    conversations = [read_conversation(reading, number, chat, names.get(number, "")) for number, chat in read]
    if not html:
        terminal.show(console, conversations, table.num_rows, reading)
        console.print()
    every = measure(path, reading)
    figures = {number: every[number - 1] for number in there}
    part = "preferences" if preferences else source
    summary = summarize(f"{split}, {part}" if part else split, config.model.name, reading, figures)
    summary = summary._replace(compared=str(answers) if answers else "")
    console.print("\n".join(summary_lines(summary)), soft_wrap=True)
    if html:
        lengths = [one["longest"] for one in figures.values() if not one["refused"]]
        _write(html, page(summary, lengths, conversations, reading))
        console.print(f"page: {html}", soft_wrap=True)
    if not preferences and others.is_file():
        console.print(f"beside them {_compared(pq.read_table(others))}: --preferences shows these", soft_wrap=True)


def _require(path: Path, preferences: bool, source: str | None) -> None:
    """Refuse a split that is not there, and a source of preferences, which are kept without."""
    if preferences and source is not None:
        raise UserError("--preferences are kept without their source; leave --source out")
    if path.is_file():
        return
    if preferences and path.parents[1].is_dir():
        raise UserError(f"{path} is missing: nothing is compared or judged; take data=preferences, and prepare again")
    raise UserError(f"{path} is missing; run `dvc repro prepare` first")


def _compared(table: pa.Table) -> Compared:
    return compared(table["comparison"].to_pylist(), table["good"].to_pylist())


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


def _reading(config: Config, split: str, loss_on: str) -> Reading:
    tokenizer = load_tokenizer(config.model)
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
