"""What `tunesmith doctor` says of stages in containers: the engine, its image, and what it can hand GPUs on with.

Without `runtime=docker` a lack is no problem, and most are not even a note.
"""

from collections.abc import Callable

from docker.errors import ImageNotFound

from common.errors import MachineError
from pipeline.commands.finding import Finding, note, ok, problem
from pipeline.containers.cards import Card, cards, require_driver, require_free
from pipeline.containers.engine import (
    DOCKERFILE,
    NO_RUNTIME,
    connect,
    digest,
    hands_gpus_on,
    info_of,
    is_rootless,
    variables,
)
from pipeline.core.composition import CONF, compose
from pipeline.core.config import DockerSettings, load

UNUSED = "runtime=docker alone wants one"


def settings() -> DockerSettings:
    """Return what the configuration says of containers."""
    return load(compose(CONF)).runtime.docker


def engine() -> Finding:
    """Look for a Docker engine that answers."""
    try:
        info = info_of(connect())
    except MachineError:
        if settings().stages:
            raise
        return ok(f"none answers; {UNUSED}")
    rootless = ", as a user's own (rootless)" if is_rootless(info) else ""
    return ok(f"Docker {info.get('ServerVersion', 'of no version')}{rootless}")


def image() -> Finding:
    """Look for the train image."""
    chosen = settings()
    try:
        found = connect().images.get(chosen.image)
    except MachineError:
        return ok("no engine answers")
    except ImageNotFound:
        if not chosen.stages:
            return ok(f"no {chosen.image}; {UNUSED}")
        if chosen.build:
            return note(f"no {chosen.image} yet", "the first stage builds it (runtime.docker.build)")
        return problem(f"no {chosen.image}", f"docker build -f {DOCKERFILE} -t {chosen.image} .")
    cuda = variables(found).get("CUDA_VERSION")
    return ok(f"{chosen.image}, {f'CUDA {cuda}' if cuda else 'for a CPU'}, {digest(found)}")


def gpu_runtime() -> Finding:
    """Ask the engine whether it can hand GPUs on, where there are some."""
    if not cards():
        return ok("none needed without a GPU")
    try:
        info = info_of(connect())
    except MachineError:
        return ok("no engine answers")
    if hands_gpus_on(info):
        return ok("the engine hands GPUs on")
    return note("the engine names no runtime for GPUs", NO_RUNTIME)


def driver() -> Finding:
    """Compare the driver with the image's CUDA."""
    installed = cards()
    if not installed:
        return ok("none needed without a GPU")
    try:
        cuda = variables(connect().images.get(settings().image)).get("CUDA_VERSION")
    except (MachineError, ImageNotFound):
        return ok(f"{installed[0].driver}; there is no image to hold it against")
    require_driver(installed, cuda, settings().image)
    return ok(f"{installed[0].driver}, new enough for the image's CUDA {cuda or '(none)'}")


def gpu_memory() -> Finding:
    """Look at what is free on each card."""
    installed = cards()
    if not installed:
        return ok("no GPU")
    require_free(installed)
    return ok(", ".join(map(free_of, installed)))


def free_of(card: Card) -> str:
    """Return what of a card is free, in words."""
    return f"{(card.total - card.used) / 1e9:.0f} of {card.total / 1e9:.0f} GB free on {card.name}"


def of_use(check: Callable[[], Finding]) -> Callable[[], Finding]:
    """Return a check whose error is a problem where stages run in containers, and else to be known."""

    def examine() -> Finding:
        try:
            return check()
        except MachineError as error:
            return problem(str(error), "") if settings().stages else note(str(error), "")

    return examine


CHECKS: dict[str, Callable[[], Finding]] = {
    name: of_use(check)
    for name, check in {
        "engine": engine,
        "image": image,
        "GPU runtime": gpu_runtime,
        "driver": driver,
        "GPU memory": gpu_memory,
    }.items()
}
