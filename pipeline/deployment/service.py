"""What a container of the server needs wherever it runs: settings, secrets by name, memory for its model."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

from common.errors import UserError
from common.files import write_text
from common.words import GIB
from llama.memory import WORK, cache_bytes
from pipeline.deployment.model import LocalModel, on_hub, on_this_machine
from serve.models.sources import HUB, REGISTRY
from serve.settings import Settings, variable

PORT = 7860  # that Dockerfile.serve listens on
USER = 1000  # that it runs as
FEEDBACK, CACHE = "/feedback", "/home/tunesmith/.cache"  # the places that it writes to
READY, ALIVE = "/readyz", "/healthz"
HUB_TOKEN = "HF_TOKEN"
LAMEDUCK = 10  # seconds in which a container that makes way is still asked: until whoever routes has looked at it
DRAIN = 120  # seconds for answers to end then: a long one on two CPUs takes that
LAST_WORDS = 10  # seconds beyond that until a container is killed
PROCESS = 1 << 30  # bytes of the server without a model: Python, Gradio's page, a process for each answer of a form
STEP = 64 << 20  # bytes that limits are whole numbers of
SECRETS = {variable(field.name): not field.repr for field in dataclasses.fields(Settings)}  # of the settings, which are
SECRET = re.compile(r"KEY|LOGIN|PASSWORD|SECRET|TOKEN")  # in the name of another variable
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Service:
    """A container of the server."""

    image: str
    environment: Mapping[str, str]
    secrets: tuple[str, ...]  # variables whose values are nobody's to write down
    memory: int  # bytes
    cpus: int
    grace: int  # seconds from being told to end until it is killed
    fetches: bool  # its model, when it starts

    @property
    def mebibytes(self) -> int:
        """Its memory."""
        return self.memory >> 20

    @classmethod
    def of(
        cls,
        image: str,
        model: str,
        given: Sequence[str] = (),
        secrets: Sequence[str] = (),
        feedback: str | None = None,
        cpus: int = 2,
        memory: float | None = None,
        **settings: str,
    ) -> Self:
        """Return what serves a model.

        Args:
            image: of the server, with the model inside unless that is fetched.
            model: FILE.gguf or a folder that is inside, or hf://… or models:/… that is fetched.
            given: NAME=VALUE of variables.
            secrets: names of variables.
            feedback: private dataset on the Hub that feedback is pushed to.
            cpus: that it may use.
            memory: GiB that it may take; counted by the model where it is not given.
            settings: other variables of the place where it runs, which `given` goes before.

        Raises:
            UserError: there is no such model, or what is given is no setting, or a secret.
        """
        environment = {"SERVE_LAMEDUCK": str(LAMEDUCK), "SERVE_DRAIN": str(DRAIN)} | settings
        fetches = model.startswith((HUB, REGISTRY))
        if fetches:
            environment["SERVE_MODELS"] = on_hub(model).source if model.startswith(HUB) else model
        if feedback:
            environment["SERVE_FEEDBACK_REPO"] = feedback
        environment |= variables(given)
        for name in secrets:
            require_name(name)
        read = Settings.from_env(environment)
        size = int(memory * GIB) if memory else memory_of(on_this_machine(model), read)
        named = dict.fromkeys([*secrets, *([HUB_TOKEN] if feedback else [])])
        grace = read.lameduck + read.drain + LAST_WORDS
        return cls(image, environment, tuple(named), size, cpus, grace, fetches)


def variables(given: Sequence[str]) -> dict[str, str]:
    """Return NAME=VALUE as names and values.

    Raises:
        UserError: one is not of that form, or has a name that secrets have.
    """
    found = dict[str, str]()
    for text in given:
        name, is_given, value = text.partition("=")
        if not is_given:
            raise UserError(f"--set {text} must be NAME=VALUE")
        require_name(name)
        if SECRETS.get(name, bool(SECRET.search(name))):
            raise UserError(f"{name} is a secret, and what is written here others may read; name it by --secret {name}")
        found[name] = value
    return found


def require_name(name: str) -> None:
    """Raise a `UserError` for what is no name of a variable: it may be a value, and is not repeated."""
    if not NAME.fullmatch(name):
        raise UserError("--set and --secret take a variable's name, of letters, digits and _; --secret no value")


def memory_of(model: LocalModel, settings: Settings) -> int:
    """Return bytes for a server with a model: its weights, what it remembers of conversations, and the rest."""
    metadata = {key: str(value) for key, value in model.header.keys.items()}
    trained = model.header.whole(f"{model.header.architecture}.context_length") or settings.context
    cache = cache_bytes(metadata) * min(settings.context, trained) * settings.slots
    needed = model.size + cache + WORK + (settings.prompt_cache_mb << 20) + PROCESS
    return -(-needed // STEP) * STEP


def as_yaml(*documents: Mapping[str, object], said: str) -> str:
    """Return documents as YAML, below a comment."""
    texts = (yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120) for document in documents)
    return "".join(f"# {line}\n" for line in said.splitlines()) + "---\n".join(texts)


class _Plain(yaml.SafeDumper):
    """Writes what stands twice twice, where YAML would have a mark of its own."""

    def ignore_aliases(self, data: object) -> bool:
        """Return that there are none."""
        return True


def write_all(folder: Path, texts: Mapping[str, str], force: bool) -> None:
    """Write files into a folder.

    Raises:
        UserError: one is there that is another one, since somebody may have changed it; not with `force`.
    """
    changed = [name for name, text in texts.items() if (path := folder / name).exists() and path.read_text() != text]
    if changed and not force:
        raise UserError(f"{folder / changed[0]} is another one already; --force replaces it, --out names a new folder")
    for name, text in texts.items():
        write_text(folder / name, text)
