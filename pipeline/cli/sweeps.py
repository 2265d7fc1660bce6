"""The verbs of sweeps that have been begun; `tunesmith train -m` begins one."""

from typing import Annotated

import typer

from common.errors import UserError
from pipeline.cli.app import app, verb
from pipeline.cli.processes import become, wait_for

sweeps = typer.Typer(help="List, rank, resume, extend and prune sweeps.", rich_markup_mode=None)
app.add_typer(sweeps, name="sweeps")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a sweep: its folder below sweeps/.")]


@verb("sweeps list", to=sweeps, name="list")
def list_sweeps() -> None:
    """Print a line for each sweep."""
    from pipeline.commands import sweeps

    sweeps.show_all()


@verb("sweeps show r5", to=sweeps)
def show(name: Name) -> None:
    """Print the trials of a sweep, the best first, and write its report."""
    from pipeline.commands import sweeps

    sweeps.show(name)


@verb("sweeps resume r5", "sweeps resume r5 --failed", to=sweeps)
def resume(
    name: Name,
    failed: Annotated[bool, typer.Option("--failed", help="Try those again, too, that have failed.")] = False,
) -> None:
    """Go on with a sweep that was ended, by the command that began it."""
    from pipeline.commands import sweeps

    stage, arguments = sweeps.arguments(name, failed)
    become(f"pipeline.stages.{stage}", *arguments)


@verb("sweeps extend r5 --rungs 1", "sweeps extend halving --trials 16", to=sweeps)
def extend(
    name: Name,
    rungs: Annotated[int, typer.Option("--rungs", min=0, help="Above the last one, each times eta.")] = 0,
    trials: Annotated[int, typer.Option("--trials", min=0, help="More of the sample.")] = 0,
) -> None:
    """Add rungs or trials to a sweep, and go on with it."""
    if not rungs and not trials:
        raise UserError("nothing to add; give --rungs or --trials")
    from pipeline.commands import sweeps

    sweeps.extend(name, rungs, trials)
    stage, arguments = sweeps.arguments(name)
    become(f"pipeline.stages.{stage}", *arguments)


@verb("sweeps prune r5", "sweeps prune r5 --all", to=sweeps)
def prune(
    name: Name,
    everything: Annotated[bool, typer.Option("--all", help="The winner's, and of those that go on, too.")] = False,
) -> None:
    """Remove the checkpoints of trials that are out."""
    from pipeline.commands import sweeps

    sweeps.prune(name, everything)


@verb(
    "replay data=starter-replay evaluate.gate.max_forgetting=0.3   # the shares 0.05, 0.1 and 0.2",
    "replay --share 0.02 --share 0.04                              # these, of what is adopted",
)
def replay(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings, as for `dvc exp run -S`.", show_default=False),
    ] = None,
    share: Annotated[
        list[float] | None, typer.Option("--share", help="Of train's rows that are replayed; may be repeated.")
    ] = None,
) -> None:
    """Find the least replay that keeps what a model knew.

    Each share is an experiment of DVC's, through all stages; those that were run before are found again.
    """
    from pipeline.commands import replay

    replay.run(share or (0.05, 0.1, 0.2), overrides or (), lambda settings: wait_for("dvc", "exp", "run", *settings))
