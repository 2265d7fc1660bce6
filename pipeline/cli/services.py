"""The verbs that serve and show what came out, and the one that looks at the machine."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.app import Verb, app, verb
from pipeline.cli.processes import become
from pipeline.cli.stages import Arguments

DATABASE, PORT = "sqlite:///mlflow.db", "5000"

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings, as in conf/.", show_default=False)
]
Folder = Annotated[Path, typer.Option("--folder", help="Where the server keeps feedback.")]


class ServeVerb(Verb):
    """The server's verb, whose help has the server's settings."""

    def get_help(self, ctx: Any) -> str:
        """Return what other verbs have, and the environment variables."""
        from serve.settings import describe

        return f"{super().get_help(ctx)}\n\nEnvironment variables, with their defaults:\n{describe()}"


@verb("serve", cls=ServeVerb)
def serve() -> None:
    """Open the chat on http://localhost:7860."""
    become("serve")


feedback = typer.Typer(help="What visitors said of answers: a table, or rows to train on.", rich_markup_mode=None)
app.add_typer(feedback, name="feedback")


@verb("feedback summary --folder feedback", to=feedback, name="summary")
def summarize(folder: Folder) -> None:
    """Print a line for each model."""
    from serve.feedback.__main__ import show

    show(folder)


@verb("feedback export --folder feedback --out data/raw/feedback.jsonl --preferences pairs.jsonl", to=feedback)
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="JSONL, such as data/raw/feedback.jsonl.")],
    preferences: Annotated[
        Path | None,
        typer.Option("--preferences", help="JSONL of answers that won and lost; not in data/raw: they are no chats."),
    ] = None,
) -> None:
    """Do the same, and write good answers as rows for data=local."""
    from serve.feedback.__main__ import export, show

    export(show(folder), out, preferences)


@verb("mlflow", "mlflow --port 5001 --host 0.0.0.0", passes_on=True)
def mlflow(arguments: Arguments = None) -> None:
    """Deliver what MLflow has not taken yet, then show the runs.

    On http://localhost:5000, out of mlflow.db. Arguments are those of `mlflow ui`.
    """
    from pipeline.commands import deliver

    deliver.run()
    become("mlflow", "ui", "--backend-store-uri", DATABASE, "--port", PORT, *(arguments or ()))


@verb("deliver", "deliver tracking.uri=http://localhost:5000")
def deliver(overrides: Overrides = None) -> None:
    """Give MLflow what it has not taken yet, where no stage runs."""
    from pipeline.commands import deliver

    deliver.run(overrides or ())


@verb("doctor")
def doctor() -> None:
    """Say what this machine and workspace have and lack.

    The status is 1 if something keeps `dvc repro` from running.
    """
    from pipeline.commands import doctor

    raise typer.Exit(doctor.run())
