"""What all verbs have in common: how they are declared, and the one way in which they end."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand
from typer.main import get_command

from common.errors import Interrupted, UserError
from pipeline.workers.last_words import TRY_AGAIN

NAME = "tunesmith"
USAGE = 2  # the status of a command line that cannot be read

app = typer.Typer(
    name=NAME,
    help="Fine-tune a model, see whether it got better, serve it. `tunesmith VERB --help` has examples.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help that can be read in a log, and needs no more imports
)


class Verb(TyperCommand):
    """A verb: what goes wrong ends in `<verb>: line`, and in the status that says what may be done about it."""

    def invoke(self, ctx: Any) -> Any:  # Typer's context is another class here than it exports
        """Run it; the status is 1 for a `UserError`, 75 where the same command goes on, 130 for Ctrl-C."""
        verb = ctx.command_path.removeprefix(f"{NAME} ")
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            end(f"{verb}: {error}", TRY_AGAIN)
        except UserError as error:
            end(f"{verb}: {error}", 1)
        except KeyboardInterrupt as error:
            hint = f"; {error}" if str(error) else ""
            end(f"{verb}: interrupted{hint}", 128 + signal.SIGINT)


def verb(
    *examples: str, to: typer.Typer = app, passes_on: bool = False, name: str | None = None, cls: type[Verb] = Verb
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a verb: its name, its docstring's line and its parameters are the verb's.

    Args:
        examples: lines for the end of its help.
        to: what it becomes a verb of.
        passes_on: its one parameter takes options, too, that are another program's; but for --help.
        name: another name than the function's.
        cls: how it ends, and what its help has besides.
    """
    settings = {"ignore_unknown_options": True} if passes_on else {}
    epilog = "\b\nExamples:\n" + "\n".join(f"  {NAME} {example}" for example in examples)
    return to.command(name, cls=cls, epilog=epilog, context_settings=settings)


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its status; one that cannot be read ends in one line with a hint."""
    try:
        return get_command(app).main(list(arguments) or ["--help"], prog_name=NAME, standalone_mode=False) or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else NAME
        message = " ".join(error.format_message().split()).rstrip(".")
        print(f"{path.removeprefix(f'{NAME} ')}: {message} (see `{path} --help`)", file=sys.stderr)
        return USAGE


def end(line: str, status: int) -> NoReturn:
    """Say why, and end."""
    print(line, file=sys.stderr)
    raise typer.Exit(status)


def require_one_of(**flags: bool) -> None:
    """Refuse flags that exclude one another."""
    options = [f"--{name}" for name, is_given in flags.items() if is_given]
    if len(options) > 1:
        raise UserError(f"{' and '.join(options)} exclude each other; give one of them")
