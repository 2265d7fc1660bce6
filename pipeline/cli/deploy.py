"""The verbs that take a model to where people use it: each a target."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.app import app, verb

deploy = typer.Typer(help="Take a model to where people use it.", rich_markup_mode=None)
app.add_typer(deploy, name="deploy")

Model = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="FILE.gguf, a folder of them, models:/NAME@ALIAS, or hf://OWNER/NAME@REVISION.",
        show_default=False,
    ),
]


@verb(
    "deploy space --repo OWNER/NAME --model models/gguf/starter-m-Q8_0.gguf --dry-run  # writes the folder alone",
    "deploy space --repo OWNER/NAME --model hf://OWNER/MODEL@v1 --public",
    "deploy space --repo OWNER/NAME --model MODEL --feedback OWNER/SAID --secret HF_TOKEN=SPACE_TOKEN",
    to=deploy,
)
def space(
    repository: Annotated[
        str, typer.Option("--repo", metavar="OWNER/NAME", help="Made where there is none.", show_default=False)
    ],
    model: Model,
    kind: Annotated[
        Literal["auto", "docker", "gradio"],
        typer.Option("--sdk", help="auto: what the account may make. gradio is a ZeroGPU Space, which free ones may."),
    ] = "auto",
    feedback: Annotated[
        str | None,
        typer.Option("--feedback", metavar="OWNER/NAME", help="Private dataset on the hub for what visitors say."),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", metavar="NAME[=VARIABLE]", help="Of this environment, e.g. SERVE_LOGIN; may be repeated."
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="For everybody; else for those with access alone.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Into a Space that holds something else, beside that.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, as in scripts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folder, and make nothing on the hub.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where it is written.  [default: deploy/NAME]")
    ] = None,
) -> None:
    """Chat with it in a Space of the Hugging Face Hub.

    Says what is going to be made, and what this account may make, before anything is.
    """
    from pipeline.commands import deploy_space

    sdk = None if kind == "auto" else kind
    order = deploy_space.Order(repository, model, sdk, feedback, secrets or (), public, force)
    deploy_space.run(order, yes, dry_run, out)


@verb(
    "deploy image --tag starter-chat:1 --model models/gguf/starter-m-Q8_0.gguf",
    "deploy image --tag registry.example.org/chat:1 --model models:/starter-m@champion",
    to=deploy,
)
def image(
    tag: Annotated[str, typer.Option("--tag", metavar="NAME[:TAG]", help="The image's.", show_default=False)],
    model: Model,
    build_args: Annotated[
        list[str] | None,
        typer.Option("--build-arg", metavar="NAME=VALUE", help="Of Dockerfile.serve, such as BASE; may be repeated."),
    ] = None,
) -> None:
    """Build an image with the model inside, for any host.

    It gets its tag once it has answered a question.
    """
    from pipeline.commands import deploy_image

    deploy_image.run(tag, model, build_args or ())
