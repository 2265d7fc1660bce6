"""The verbs that serve and show what came out, and the one that looks at the machine."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.app import Verb, app, verb
from pipeline.cli.processes import become
from pipeline.cli.stages import Arguments

PORT = "5000"
DATABASE = "MLFLOW_BACKEND_STORE_URI"  # not on the command line, where everybody could read its password

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


@verb(
    "feedback forget --visitor 357f87eaeef510224839c13cdcd6770e",
    "feedback forget --visitor 357f87ea --dataset owner/feedback",
    to=feedback,
)
def forget(
    visitor: Annotated[
        str, typer.Option("--visitor", metavar="NUMBER", help="As the page shows it, or its beginning.")
    ],
    overrides: Overrides = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the server keeps feedback.")] = Path("feedback"),
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="OWNER/NAME", help="On the hub; else the one that the folder is pushed to."),
    ] = None,
) -> None:
    """Take what a visitor said out of every place, and name the models that learnt it.

    Out of the folder and the dataset on the hub, rows, prepared data, reports, DVC's cache and remotes, and what MLflow
    keeps beside runs. Interrupted, the same command goes on.
    """
    from pipeline.commands import forget

    forget.run(visitor, folder, dataset, overrides or ())


@verb(
    "mlflow",
    "mlflow --port 5001 --host 0.0.0.0 --allowed-hosts runs.example.org",
    "mlflow tracking.uri=postgresql://localhost/runs",
    passes_on=True,
)
def mlflow(arguments: Arguments = None) -> None:
    """Deliver what MLflow has not taken yet, then show the runs.

    On http://localhost:5000, out of the database that conf/tracking or MLFLOW_TRACKING_URI names, else mlflow.db; where
    they go to a server, it says so. Arguments are settings of tracking, and the options of `mlflow server`.
    """
    from pipeline.commands import mlflow_server

    database, options = mlflow_server.run(arguments or ())
    if database:
        os.environ[DATABASE] = database
        become("mlflow", "server", "--port", PORT, *options)


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
