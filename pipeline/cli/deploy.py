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
Feedback = Annotated[
    str | None,
    typer.Option("--feedback", metavar="OWNER/NAME", help="Private dataset on the hub for what visitors say."),
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
    feedback: Feedback = None,
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


Images = Annotated[
    str, typer.Option("--image", metavar="IMAGE", help="Of the server, as from `deploy image`.", show_default=False)
]
Served = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="FILE.gguf or a folder, which the image has inside; or hf://… or models:/…, which it fetches.",
        show_default=False,
    ),
]
Given = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting, such as SERVE_CONTEXT=8192; may be repeated."),
]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="NAME", help="A variable whose value is not written; may be repeated."),
]
Cpus = Annotated[int, typer.Option("--cpus", min=1, help="Of each container.")]
Memory = Annotated[
    float | None, typer.Option("--memory", metavar="GIB", min=0.5, help="Of each container; else by its model.")
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where it is written.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that were changed.")]


@verb(
    "deploy oci --tag OWNER/chat:1 --model models/gguf/starter-m-Q8_0.gguf           # Docker Hub",
    "deploy oci --tag ghcr.io/OWNER/chat:1 --model models:/tunesmith@champion --licence LICENSE",
    "deploy oci --tag localhost:5000/me/chat:1 --model models/gguf/starter-m-Q8_0.gguf",
    to=deploy,
)
def oci(
    tag: Annotated[
        str,
        typer.Option("--tag", metavar="[REGISTRY/]OWNER/NAME[:TAG]", help="Where it goes.", show_default=False),
    ],
    model: Model,
    licences: Annotated[
        list[Path] | None, typer.Option("--licence", metavar="FILE", help="Its text goes along; may be repeated.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain-http", help="Without TLS, as a registry on this machine is reached anyway.")
    ] = False,
) -> None:
    """Put the GGUF into a registry, for Docker Model Runner and llama-server.

    By Docker's login (`docker login`), or REGISTRY_USERNAME and REGISTRY_PASSWORD.
    """
    from pipeline.commands import deploy_oci

    deploy_oci.run(tag, model, licences or (), plain)


@verb(
    "deploy compose --image chat:1 --model models/gguf/starter-m-Q8_0.gguf",
    "deploy compose --image tunesmith-serve --model hf://OWNER/NAME@v1 --feedback OWNER/SAID --secret SERVE_LOGIN",
    to=deploy,
)
def compose(
    image: Images,
    model: Served,
    given: Given = None,
    secrets: Secrets = None,
    feedback: Feedback = None,
    cpus: Cpus = 2,
    memory: Memory = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of this machine.")] = 7860,
    out: Out = Path("deploy/compose"),
    force: Force = False,
) -> None:
    """Write what `docker compose` serves it by: two versions behind a proxy, one of which is up."""
    from pipeline.commands import deploy_compose
    from pipeline.deployment.service import Service

    behind_a_proxy = {"SERVE_PROXY": "1"}
    service = Service.of(image, model, given or (), secrets or (), feedback, cpus, memory, **behind_a_proxy)
    deploy_compose.run(service, port, out, force)


@verb(
    "deploy kubernetes --image registry.example.org/chat:1 --model models/gguf/starter-m-Q8_0.gguf --most 8",
    "deploy kubernetes --image registry.example.org/serve:1 --model hf://OWNER/NAME@v1 --secret SERVE_API_KEY",
    to=deploy,
)
def kubernetes(
    image: Images,
    model: Served,
    given: Given = None,
    secrets: Secrets = None,
    feedback: Feedback = None,
    cpus: Cpus = 2,
    memory: Memory = None,
    name: Annotated[str, typer.Option("--name", help="Of all that is made.")] = "tunesmith",
    least: Annotated[int, typer.Option("--least", min=1, help="Pods there are always.")] = 1,
    most: Annotated[int, typer.Option("--most", min=1, help="Pods where questions wait.")] = 4,
    out: Out = Path("deploy/kubernetes"),
    force: Force = False,
) -> None:
    """Write the manifests of a Deployment, a Service and an autoscaler by waiting questions."""
    from pipeline.commands import deploy_kubernetes
    from pipeline.deployment.service import Service

    service = Service.of(image, model, given or (), secrets or (), feedback, cpus, memory)
    deploy_kubernetes.run(name, service, least, most, out, force)
