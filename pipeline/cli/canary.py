"""The verbs of a candidate that visitors try beside the champion."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import app, require_one_of, verb

canary = typer.Typer(help="Try a candidate on visitors beside the champion.", rich_markup_mode=None)
app.add_typer(canary, name="canary")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in conf/.", show_default=False)
]
Folder = Annotated[Path | None, typer.Option("--folder", help="Where the server keeps feedback.  [default: feedback]")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="OWNER/NAME", help="On the hub, instead of a folder.")
]


@verb(
    "canary start                        # the file that conf/compare's rule takes",
    "canary start --quantization Q4_K_M  # that one",
    "canary start --version 3            # one that is registered",
    to=canary,
)
def start(
    overrides: Overrides = None,
    quantization: Annotated[
        str | None, typer.Option("--quantization", metavar="TYPE", help="Of the evaluated GGUF files, the one to try.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=1, help="A version in MLflow's registry, instead.")
    ] = None,
) -> None:
    """Register the evaluated model as the candidate, which must have passed."""
    require_one_of(quantization=quantization is not None, version=version is not None)
    from pipeline.commands import canary

    canary.start(overrides or (), quantization, version)


@verb("canary status", "canary status --dataset owner/feedback", to=canary)
def status(overrides: Overrides = None, folder: Folder = None, dataset: Dataset = None) -> None:
    """Say what visitors find so far, and about how many more votes would tell."""
    require_one_of(folder=folder is not None, dataset=dataset is not None)
    from pipeline.canary.look import Source
    from pipeline.commands import canary

    canary.status(overrides or (), Source(folder or Path("feedback"), dataset))


@verb(
    "canary watch                        # promotes or withdraws the candidate by itself",
    "canary watch canary.on_better=tell  # says so, and moves nothing",
    "canary watch --once                 # one look, as for cron",
    to=canary,
)
def watch(
    overrides: Overrides = None,
    folder: Folder = None,
    dataset: Dataset = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Between two looks.")] = 60,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
) -> None:
    """Look at what visitors say until that tells the two apart, then do what conf/canary says."""
    require_one_of(folder=folder is not None, dataset=dataset is not None)
    from pipeline.canary.look import Source
    from pipeline.commands import canary

    canary.watch(overrides or (), Source(folder or Path("feedback"), dataset), seconds, once)


@verb("canary end", "canary end --promote", to=canary)
def end(
    overrides: Overrides = None,
    folder: Folder = None,
    dataset: Dataset = None,
    promote: Annotated[bool, typer.Option("--promote", help="The candidate becomes the champion.")] = False,
) -> None:
    """End it by hand: the candidate is withdrawn, or becomes the champion."""
    require_one_of(folder=folder is not None, dataset=dataset is not None)
    from pipeline.canary.look import Source
    from pipeline.commands import canary

    canary.end(overrides or (), Source(folder or Path("feedback"), dataset), promote)
