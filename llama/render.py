"""Writes conversations as a chat template has them, in a process of its own: `python -P llama/render.py`.

A template is a program that came with a model's file: it may never end, or fill the memory, within one operation that
nothing in Python can break off. Here it may take SECONDS for a conversation, and the process dies.

Lines of JSON come in and go out: first a `Setup`, then the template's variables for each conversation, of which the
answer is a `Rendering`.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TypedDict

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 1.0  # for a conversation, and for the template to be read
MEMORY = 512 << 20  # bytes
LONGEST = 16_000_000  # characters of a conversation as it is written: beyond any context
SHOWN = 300  # characters of what went wrong


class Setup(TypedDict):
    """A chat template and what it is given beside the conversation."""

    template: str
    bos_token: str
    eos_token: str
    today: str | None  # ISO 8601; None is the day that it is


class Rendering(TypedDict, total=False):
    """A conversation as the template writes it, or why it does not."""

    text: str
    refused: str  # by the template's own words
    failed: str  # with the template's own fault


class RefusedError(Exception):
    """The template takes no such conversation, as it says itself."""


class Generation(Extension):
    """`{% generation %}` marks what is trained on, and changes nothing here."""

    tags = {"generation"}  # noqa: RUF012 -- as Jinja has it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """Return what stands within the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as templates are promised it: Jinja's own filter escapes what HTML would not bear."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def refuse(reason: object) -> None:
    """Raise what a template means by raise_exception."""
    raise RefusedError(str(reason))


def compile_template(setup: Setup) -> jinja2.Template:
    """Return the template, in the environment that Transformers renders it in."""
    today = setup["today"]
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {
        "bos_token": setup["bos_token"],
        "eos_token": setup["eos_token"],
        "raise_exception": refuse,
        "strftime_now": lambda form: (datetime.fromisoformat(today) if today else datetime.now()).strftime(form),
    }
    return environment.from_string(setup["template"])


def render(template: jinja2.Template, variables: Mapping[str, object]) -> Rendering:
    """Return what the template makes of a conversation; nothing that it may raise comes out of here."""
    try:
        text = template.render(variables)
    except RefusedError as refusal:
        return {"refused": str(refusal)[:SHOWN]}
    except Exception as error:
        return {"failed": describe(error)}
    if len(text) > LONGEST:
        return {"failed": f"it writes {len(text)} characters"}
    return {"text": text}


def describe(error: Exception) -> str:
    """Return what went wrong, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())[:SHOWN]


def prepare(setup: Setup) -> Callable[[Mapping[str, object]], Rendering]:
    """Return what writes conversations, or says of each that the template cannot be read."""
    try:
        return partial(render, compile_template(setup))
    except Exception as error:
        broken: Rendering = {"failed": describe(error)}
        return lambda _: broken


@contextmanager
def deadline() -> Iterator[None]:
    """Let the process die of SIGALRM where the block takes longer than it may."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Answer line for line, until nothing more can come."""
    with suppress(ValueError):  # more is taken already, or allowed: another system than Linux, a limit of the user's
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    setup: Setup = json.loads(sys.stdin.buffer.readline())
    with deadline():
        write = prepare(setup)
    for line in sys.stdin.buffer:
        variables = json.loads(line)
        with deadline():
            rendering = write(variables)
        sys.stdout.buffer.write(json.dumps(rendering).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
