"""The verbs of the pipeline: all of it, a stage at a time, and what its trainings keep and are told."""

import re
import shlex
import tempfile
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import typer

from common.errors import UserError
from pipeline.cli.app import end, verb
from pipeline.cli.processes import become, wait_for
from pipeline.workers.last_words import STATUS


class Stage(NamedTuple):
    """A stage as a verb: what it does, in a line, and an example beside the usual ones."""

    purpose: str
    example: str


# pipeline/stages/<name>.py, in the order in which DVC runs them.
STAGES = {
    "learn": Stage("Make data of what visitors said.", "learn.folder=feedback"),
    "prepare": Stage("Make chats in three splits of instruction data.", "data=local data.max_rows=1000"),
    "train": Stage("Fine-tune the model on the prepared chats.", "-m train.lr=1e-4,2e-4  # a sweep"),
    "export": Stage("Make GGUF files of what was trained, and check them.", "export.quantizations=[Q4_K_M]"),
    "evaluate": Stage("Measure base, tuned model and GGUF files.", "evaluate.max_questions=20"),
    "report": Stage("Judge what was measured, and show it.", "evaluate.gate.max_task_drop=0.2"),
}
OVERRIDES = """
    Runs in the workspace, without DVC: `dvc commit` keeps what comes out, the next `dvc repro` else puts back what was
    recorded. Arguments are Hydra's, and go to it unchanged: overrides, -m for a sweep, --config-dir and the like.
"""

Arguments = Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT", hidden=True)]


@verb("repro", "repro evaluate", "repro --force train", passes_on=True)
def repro(arguments: Arguments = None) -> None:
    """Run the stages whose inputs changed, then print the results.

    Arguments are those of `dvc repro`; the status is that of the stage that failed, if one did.
    """
    refuse_overrides(arguments or ())
    with tempfile.NamedTemporaryFile(mode="r", prefix="tunesmith-") as of_stage:
        if status := reproduce(*(arguments or ()), **{STATUS: of_stage.name}):
            raise typer.Exit(int(of_stage.read() or status))
    if makes_results(arguments or ()):
        from pipeline.commands import summary

        summary.run()


NOTHING_BETTER = 3  # the status of a turn after which the champion is who it was


@verb(
    "turn                                              # feedback/, by conf/experiment/turn.yaml",
    "turn learn.folder=null learn.dataset=owner/feedback",
    "turn train=kto 'data.sources.visitors.files=[data/feedback/*/*.jsonl]'",
)
def turn(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in conf/.", show_default=False)
    ] = None,
) -> None:
    """Make the next champion of what visitors said.

    Learns, trains from the champion on, evaluates, and promotes what is better; interrupted or killed, it is gone on
    with by the same command. The status is 0 where there is another champion, 3 where there is nothing new to learn or
    nothing better, else 1: the champion is then who it was.
    """
    from pipeline.commands import turn
    from pipeline.learning.sources import NothingToLearn

    try:
        promoted = turn.run(overrides or (), lambda arguments: reproduce(*arguments))
    except NothingToLearn as nothing:
        end(f"turn: {nothing}", NOTHING_BETTER)
    if not promoted:
        raise typer.Exit(NOTHING_BETTER)


def reproduce(*arguments: str, **variables: str) -> int:
    """Run `dvc repro`, once files of DVC's that a kill cut short are put right, and return its status."""
    from pipeline.core import dvc_files

    dvc_files.mend()
    return wait_for("dvc", "repro", *arguments, **variables)


def refuse_overrides(arguments: Sequence[str]) -> None:
    """Refuse what DVC would take for a stage's name."""
    for argument in arguments:
        if re.match(r"[+~]{0,2}\w[\w./@:-]*=", argument):
            quoted = shlex.quote(argument)
            ways = f"`tunesmith adopt {quoted}` makes it last, `dvc exp run -S {quoted}` tries it"
            raise UserError(f"{argument} is a setting, and the arguments here are stages: {ways}")


def makes_results(arguments: Sequence[str]) -> bool:
    """Tell whether `dvc repro` with these arguments ends with results that are new."""
    stages = [argument for argument in arguments if argument in ("compose", "data_report", *STAGES)]
    return "--dry" not in arguments and (not stages or list(STAGES)[-1] in stages)


@verb("compose")
def compose() -> None:
    """Write params.yaml from conf/, and link what it names.

    It takes no overrides: `tunesmith adopt` makes them last, `dvc exp run -S` tries them.
    """
    become("pipeline.stages.compose")


def add_stage(name: str, stage: Stage) -> None:
    """Make a stage a verb."""

    def run_stage(arguments: Arguments = None) -> None:
        become(f"pipeline.stages.{name}", *(arguments or ()))

    run_stage.__doc__ = f"{stage.purpose}\n{OVERRIDES}"
    more = f"{name} --cfg job    # all settings", f"{name} --hydra-help"
    verb(name, f"{name} {stage.example}", *more, passes_on=True, name=name)(run_stage)


for name, stage in STAGES.items():
    add_stage(name, stage)


@verb(
    "adopt                                    # what is adopted",
    "adopt model=llama-3.2-1b data=finetome   # from now on, `dvc repro` uses these",
    "adopt --drop train.lr                    # no longer this one",
    "adopt --reset                            # nothing any more",
)
def adopt(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="As for `dvc exp run -S`.", show_default=False)
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="KEY", help="What is adopted no longer; may be repeated."),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Adopt nothing any more but what is given here.")] = False,
) -> None:
    """Make overrides last; without arguments, list them."""
    from pipeline.commands import adopt

    adopt.run(overrides or (), drop or (), reset)


@verb(
    "checkpoints                  # the list",
    "checkpoints --prune 7d       # those of trainings that nobody ran for seven days; also 12h, 30m",
    "checkpoints --prune 3f2a     # those of one training, by the beginning of its name",
)
def checkpoints(
    prune: Annotated[
        str | None, typer.Option("--prune", metavar="AGE|NAME", help="Unused for so long; or one training's name.")
    ] = None,
) -> None:
    """List the checkpoints of trainings; remove some."""
    from pipeline.commands import checkpoints

    checkpoints.run(prune)
