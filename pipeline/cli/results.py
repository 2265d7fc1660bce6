"""The verbs that go on from what was evaluated."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.errors import UserError
from pipeline.cli.app import require_one_of, verb


@verb("summary")
def summary() -> None:
    """Print figures and verdict of the last evaluation."""
    from pipeline.commands import summary

    summary.run()


@verb(
    "compare                                  # the newest run of each fingerprint in MLflow",
    "compare small HEAD~1 workspace           # MLflow runs, DVC experiments, git revisions, the files here",
    "compare compare.max_answer_seconds=2     # within another budget than conf/compare has",
)
def compare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN|KEY=VALUE", help="A run; or a setting, as in conf/.", show_default=False),
    ] = None,
) -> None:
    """Put evaluated runs side by side, and say which file to serve.

    Writes reports/compare.json, .md, .html and .svg.
    """
    from pipeline.commands import compare

    compare.run(arguments or ())


@verb(
    "promote                          # the file that conf/compare's rule takes",
    "promote --quantization Q4_K_M    # that one",
    "promote --force                  # all the same; a tag says what spoke against it",
    "promote --rollback               # back to the champion before; once more, and forth again",
)
def promote(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings, as in conf/.", show_default=False),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option("--quantization", metavar="TYPE", help="The GGUF to promote; else conf/compare's rule decides."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote even if it did not pass, or the champion is better.")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the champion before.")] = False,
) -> None:
    """Make the evaluated model the champion, if it is better."""
    require_one_of(force=force, rollback=rollback)
    from pipeline.commands import promote

    promote.run(overrides or (), quantization, force, rollback)


@verb(
    "publish OWNER/NAME                       # GGUF files and adapter, in a private repository",
    "publish OWNER/NAME --gguf --public       # the GGUF files alone, for everybody",
    "publish OWNER/NAME --adapter --merged    # for PEFT and for Transformers",
)
def publish(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Made where there is none.")],
    gguf: Annotated[bool, typer.Option("--gguf", help="The GGUF files of models/gguf, but for the base's.")] = False,
    adapter: Annotated[bool, typer.Option("--adapter", help="For PEFT; gguf and adapter are what is usual.")] = False,
    merged: Annotated[
        bool, typer.Option("--merged", help="Base and adapter as one 16-bit model, for Transformers.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="For those with access alone: the default.")] = False,
    public: Annotated[bool, typer.Option("--public", help="For everybody.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Although it did not pass; README.md says so.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Into a repository that holds something else, beside that.")
    ] = False,
) -> None:
    """Put the model on the Hugging Face Hub, with a card."""
    require_one_of(private=private, public=public)
    from pipeline.commands import publish

    chosen = {"gguf": gguf, "adapter": adapter, "merged": merged}
    publish.run(repository, [part for part, is_chosen in chosen.items() if is_chosen], public, failed, force)


@verb(
    "verify models/gguf/starter-m-Q8_0.gguf                  # prepare, train and export it again",
    "verify models/gguf/starter-m-Q8_0.gguf --from adapter   # export models/adapter again: the cheap part",
    "verify one.gguf --against other.gguf                    # in what two files differ",
    "verify models/gguf/starter-m-Q8_0.gguf --key them.pub   # is it what they have signed? nothing is made",
)
def verify(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FILE.gguf",
            help="That `export` has made; with --key also an adapter's folder, or an image as docker:NAME.",
            show_default=False,
        ),
    ],
    made_from: Annotated[
        Literal["data", "adapter"],
        typer.Option("--from", help="What to begin with: the data, or models/adapter as it is here."),
    ] = "data",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE.gguf", help="Compare with it, and make nothing again.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE.pub", help="Require a signature by this key, and make nothing again."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE", help="With --key: the signature, if not beside it.")
    ] = None,
) -> None:
    """Make a file again, or check who has signed it.

    The status is 0 where it is the same to the byte, or as it was signed, else 1: what differs is named.
    """
    require_one_of(against=against is not None, key=key is not None, **{"from": made_from == "adapter"})
    from pipeline.commands import verify

    if key is not None:
        verify.check_signature(name, key, bundle)
    elif bundle is not None:
        raise UserError("--bundle is a signature, which --key is needed to check; add --key FILE.pub")
    else:
        verify.run(Path(name), made_from == "adapter", against)


@verb("keygen ~/.config/tunesmith/signing    # signing.key and signing.pub there")
def keygen(
    path: Annotated[Path, typer.Argument(metavar="NAME", help="Of both, without their endings.", show_default=False)],
) -> None:
    """Make a key pair to sign models with.

    The private one, NAME.key, is readable for you alone; keys are never overwritten.
    """
    from pipeline.commands import sign

    sign.make_keys(path.expanduser())


@verb(
    "sign                                           # what models/gguf and models/adapter hold",
    "sign downloads/tiny-Q8_0.gguf --key mine.key   # that file, beside it",
    "sign docker:tunesmith-serve",
)
def sign(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE|FOLDER|docker:NAME", help="Made by Tunesmith.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE.key", help="The private key; else TUNESMITH_SIGNING_KEY names it."),
    ] = None,
) -> None:
    """Sign what models and images are made of, and by what."""
    from pipeline.commands import sign

    sign.run(names or (), key)


@verb("sbom > environment.cdx.json", "sbom models/gguf/starter-m-Q8_0.gguf", "sbom docker:tunesmith-serve")
def sbom(
    name: Annotated[
        str | None,
        typer.Argument(metavar="FILE|FOLDER|docker:NAME", help="Else this environment.", show_default=False),
    ] = None,
) -> None:
    """Print what a model or an image is made of.

    As CycloneDX's JSON; without a name, what this environment holds.
    """
    from pipeline.commands import sign

    print(sign.bill(name), end="")
