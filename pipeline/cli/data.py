"""The verbs about data."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.errors import UserError
from pipeline.cli.app import app, verb


class Split(StrEnum):
    """A split of the prepared data."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@verb(
    "learn                                    # what the server keeps in feedback/",
    "learn --dataset owner/feedback           # what it pushes to the hub",
    "learn --folder feedback --per-visitor 10 --held-out 0.3",
)
def learn(
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where the server keeps feedback.  [default: feedback]")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="OWNER/NAME", help="On the hub, instead of a folder.")
    ] = None,
    per_visitor: Annotated[int, typer.Option("--per-visitor", help="Rows at most of one visitor.")] = 20,
    near_duplicates: Annotated[
        float, typer.Option("--near-duplicates", help="Overlap from which one row of a cluster is kept.")
    ] = 0.9,
    held_out: Annotated[float, typer.Option("--held-out", help="Share that is kept for judging.")] = 0.2,
    validation: Annotated[float, typer.Option("--validation", help="Share that training is stopped by.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
) -> None:
    """Make data of what visitors said.

    Writes data/feedback, which data=preferences takes, and reports/feedback.html: who said what how often, what was
    left out and why.
    """
    from pipeline.commands import learn
    from pipeline.learning.settings import LearnSettings

    if folder and dataset:
        raise UserError("--folder and --dataset exclude each other; give one of them")
    settings = LearnSettings(
        per_visitor=per_visitor, near_duplicates=near_duplicates, held_out=held_out, validation=validation, seed=seed
    )
    learn.run(folder, dataset, settings)


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
