"""Builds an image with the server and a model inside, for any host that runs containers.

    tunesmith deploy image --tag starter-chat:1 --model models/gguf/starter-m-Q8_0.gguf

It says in labels what it is made of, and gets its tag once a container of it has answered a question: what does not
answer leaves the tag where it was.
"""

import re
from collections.abc import Sequence

from common.errors import UserError
from pipeline.containers.engine import connect, require_command
from pipeline.deployment.image import answer_of, base, built, discard, labels, with_bills
from pipeline.deployment.model import on_this_machine
from pipeline.deployment.question import QUESTION
from pipeline.provenance.bundles import sign_image
from pipeline.provenance.signing import OWN, own_signer

# As engines take them: a registry, a path in small letters, a tag.
TAG = re.compile(r"(?P<name>([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*)(:(?P<version>\w[\w.-]{0,127}))?", re.ASCII)


def run(tag: str, model: str, build_args: Sequence[str] = ()) -> None:
    """Build it, ask it, tag it.

    Args:
        tag: NAME or NAME:TAG.
        model: files of this machine, or what they are fetched from.
        build_args: of Dockerfile.serve, NAME=VALUE each.

    Raises:
        UserError: something is missing, the build fails, the image does not answer, or a key cannot be used.
    """
    named = TAG.fullmatch(tag)
    if not named:
        raise UserError(f"{tag} is no tag of an image; name it NAME:TAG in small letters, as starter-chat:1")
    name, version = named["name"], named["version"] or "latest"
    signer = own_signer()
    require_command("deploy image")
    chosen = on_this_machine(model)
    engine = connect("the build's files are here", "")
    said = labels(chosen, name, version, base(engine, build_args))
    print("\n".join(f"{key:<40}{value}" for key, value in said.items()), flush=True)
    plain = built(engine, chosen, said, build_args)
    try:
        image = with_bills(engine, plain, chosen)
    finally:
        discard(engine, plain)
    try:
        answer = answer_of(engine, image)
    except BaseException:
        discard(engine, image)
        raise
    image.tag(name, version)
    print(f"asked   {QUESTION}\nanswer  {answer}")
    signed = sign_image(f"{name}:{version}", signer) if signer else f"no, since {OWN} names no key"
    print(f"signed  {signed}")
    print(f"tagged  {name}:{version}, {image.attrs['Size'] / 1e6:,.0f} MB; docker run -p 7860:7860 {name}:{version}")
