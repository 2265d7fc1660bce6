"""The verbs about data."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import app, verb


class Split(StrEnum):
    """A split of the prepared data."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


data = typer.Typer(help="The prepared data, as the model will read it.", rich_markup_mode=None)
app.add_typer(data, name="data")


@verb(
    "data look                                 # five conversations of train, and the split in figures",
    "data look --row 12 --row 40               # these",
    "data look --html look.html --rows 50      # a page",
    "data look --preferences                   # pairs and judgements, where the data has some",
    "data look model=llama-3.2-1b train.max_length=512 --split validation",
    to=data,
)
def look(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in conf/.", show_default=False)
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Which is looked at.")] = Split.TRAIN,
    rows: Annotated[int, typer.Option("--rows", min=0, help="How many conversations are drawn.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Another draws others.")] = 0,
    row: Annotated[
        list[int] | None, typer.Option("--row", metavar="N", min=1, help="This one, from 1; may be repeated.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="NAME", help="One of data.sources, instead of all.")
    ] = None,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="Answers that are compared or judged, instead of conversations.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="As a page, instead of in the terminal.")
    ] = None,
) -> None:
    """Show rows as the model will read them, and what max_length cuts.

    What is learnt is coloured; without colour, as in a pipe, it stands in marks.
    """
    from pipeline.commands import look

    look.run(overrides or (), split.value, rows, seed, row or (), html, source, preferences)
