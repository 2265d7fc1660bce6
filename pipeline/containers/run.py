"""A stage in a container of the train image: started, listened to, stopped with time to save, and nothing left of it.

The container holds on to this process by its standard input, which ends with whoever started it, however that ends:
the stage then saves and ends by itself (pipeline/workers/parent.py), and the engine removes what is left. What is
written goes by checkpoints and their fingerprint alone, so the next start goes on from there, in a container or not.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import docker
import psutil
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.models.images import Image
from docker.types import DeviceRequest, Mount
from docker.utils.socket import STDERR, frames_iter
from requests.exceptions import RequestException

from common.errors import Interrupted, MachineError
from pipeline.containers.cards import cards, chosen, require_driver, require_free
from pipeline.containers.engine import (
    connect,
    digest,
    has_labels,
    image_of,
    info_of,
    is_rootless,
    reason,
    refusal,
    variables,
)
from pipeline.containers.mounts import hub_caches, packaged_models, places
from pipeline.core.config import Config, DockerSettings, RuntimeSettings
from pipeline.core.paths import root
from pipeline.workers.gpus import claim_gpu
from pipeline.workers.last_words import POLL
from pipeline.workers.launcher import WORKER, Requests, write_settings
from pipeline.workers.parent import HELD, IN_IMAGE, ORPHANED

LEAST_ROOM = 1e9  # bytes for checkpoints and outputs, as `tunesmith doctor` has it
STOP_PATIENCE = 300  # seconds that `docker stop` and the engine's own end leave a stage to save
SHARED_MEMORY = "8g"  # for NCCL, and workers that load data; taken as it is used
LAST_LINES = 10.0  # seconds for what a container has printed to come
KILLED = 128 + signal.SIGKILL
STAGE, STARTED_BY, REPOSITORY = (f"tunesmith.{name}" for name in ("stage", "started-by", "repository"))  # labels
# Handed on whatever the configuration names beside them: what says where a stage is and how many threads it has.
HANDED_ON = (
    "DVC_EXP_BASELINE_REV", "DVC_EXP_NAME", "DVC_ROOT", "OMP_NUM_THREADS", "TUNESMITH_CPU", "USER",
)  # fmt: skip


def run_in_container(stage: str, config: Config, out: Path) -> None:
    """Run a stage in a container and wait for it: what asks this process to stop is handed on.

    Args:
        stage: its name.
        config: that it runs with.
        out: where its outputs go.

    Raises:
        Interrupted: it was asked to stop before it began, or the engine went away.
        UserError: something is missing, and nothing has begun.
        SystemExit: the stage failed, with its own status; it has said why.
    """
    engine = connect()
    clear_away(engine)
    image = image_of(engine, config.runtime.docker)
    given = gpus_for(config.runtime, image)
    folders = places(config, out)
    require_room([out, root() / config.runtime.checkpoint_root])
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as name, Requests() as requests:
        write_settings(config, out, Path(name) / f"{WORKER}.yaml")
        command = ("-m", f"pipeline.stages.{stage}", "--config-dir", name, "--config-name", WORKER)
        container = created(engine, image, stage, command, [*folders, Path(name)], given, config.runtime.docker)
        status = followed(engine, container, requests)
    if status is None:
        raise Interrupted("the Docker engine went away; the same command goes on from the newest checkpoint")
    if status == KILLED:
        line = "the container was killed, by docker kill or for want of memory"
        print(f"{stage}: {line}; the same command goes on from the newest checkpoint", file=sys.stderr)
    if status:
        sys.exit(status)


def gpus_for(runtime: RuntimeSettings, image: Image) -> list[str]:
    """Return the names of the GPUs that the container is given, each fit to be used.

    Raises:
        MachineError: the driver is too old, or a card is taken or full.
    """
    if runtime.device == "cpu":
        return []
    claim_gpu(runtime)
    installed = cards()
    given = chosen(installed)
    if runtime.device == "cuda" and not given:
        raise MachineError("runtime.device is cuda, and this machine shows no GPU; see `tunesmith doctor`")
    require_driver(installed, variables(image).get("CUDA_VERSION"), runtime.docker.image)
    require_free([card for card in installed if card.uuid in given])
    return given


def require_room(folders: Sequence[Path]) -> None:
    """Refuse a disk that is full.

    Raises:
        MachineError: it is.
    """
    for folder in folders:
        if (free := shutil.disk_usage(folder).free) < LEAST_ROOM:
            room = "make room (tunesmith checkpoints --prune 7d)"
            raise MachineError(f"{free / 1e9:.1f} GB are free in {folder}; {room}")


def created(
    engine: docker.DockerClient,
    image: Image,
    stage: str,
    command: Sequence[str],
    folders: Sequence[Path],
    given: Sequence[str],
    settings: DockerSettings,
) -> Container:
    """Return a container that is not started yet; the engine removes it when it has ended.

    Args:
        engine: that makes it.
        image: of what.
        stage: whose it is, as a label.
        command: of Python, in the working folder.
        folders: of this machine that it sees, at their own paths.
        given: its GPUs.
        settings: its network, and the variables that are handed on.

    Raises:
        MachineError: the engine refuses.
    """
    info = info_of(engine)
    host = engine.api.create_host_config(
        auto_remove=True,
        mounts=[*map(bind, folders), *models_in(image, folders)],
        network_mode=settings.network,
        shm_size=SHARED_MEMORY,
        device_requests=device_requests(given),
        cap_drop=["ALL"] if os.getuid() else None,  # root keeps its way to files of others
        security_opt=["no-new-privileges", *(["label=disable"] if has_labels(info) else [])],
        group_add=None if is_rootless(info) else os.getgroups(),
    )
    try:
        answer = engine.api.create_container(
            str(image.id),
            [*command],
            entrypoint=["dumb-init", "--", "python"],
            user="0:0" if is_rootless(info) else f"{os.getuid()}:{os.getgid()}",
            working_dir=str(Path.cwd()),
            environment=environment(image, settings),
            labels={STAGE: stage, STARTED_BY: this_process(), REPOSITORY: str(root().resolve())},
            stdin_open=True,
            stop_timeout=STOP_PATIENCE,
            host_config=host,
        )
        return engine.containers.get(answer["Id"])
    except (APIError, RequestException) as error:
        raise MachineError(f"the Docker engine makes no container: {reason(error)}") from error


def bind(source: Path, target: str | None = None) -> Mount:
    """Return a folder of this machine, as a container sees it."""
    return Mount(target or str(source), str(source), type="bind")


def models_in(image: Image, folders: Sequence[Path]) -> list[Mount]:
    """Return the mount of models out of Python packages where the image looks for them, unless they are there anyway.

    Beside them stands llama.cpp's converter, which is the image's own.
    """
    target = Path(variables(image)["XDG_CACHE_HOME"]) / "tunesmith" / packaged_models().name
    return [] if any(target.is_relative_to(folder) for folder in folders) else [bind(packaged_models(), str(target))]


def device_requests(given: Sequence[str]) -> list[DeviceRequest]:
    """Return what asks an engine for these GPUs; nothing for none."""
    return [DeviceRequest(device_ids=[*given], capabilities=[["gpu"]])] if given else []


def environment(image: Image, settings: DockerSettings) -> dict[str, str]:
    """Return what the container's processes find in theirs: of this process's what is named, and what we say."""
    names = (*HANDED_ON, *settings.environment)
    given = {name: os.environ[name] for name in names if name in os.environ}
    return given | hub_caches() | {IN_IMAGE: digest(image), HELD: "1", "PYTHONPATH": str(Path.cwd())}


def followed(engine: docker.DockerClient, container: Container, requests: Requests) -> int | None:
    """Start a container, print what it prints, and return its status; None where the engine went away.

    Raises:
        Interrupted: a request came before it was started.
        MachineError: the engine refuses to start it.
    """
    ended: list[int] = []

    def wait() -> None:
        with suppress(DockerException, RequestException):  # the engine went away
            ended.append(container.wait(condition="removed")["StatusCode"])

    output = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    printer = threading.Thread(target=print_all, args=(output,), daemon=True)
    waiter = threading.Thread(target=wait, daemon=True)
    printer.start()
    waiter.start()
    if requests.taken:
        container.remove()
        raise Interrupted(f"{signal.Signals(requests.taken[0]).name}: stopped before the container was started")
    try:
        container.start()
    except (APIError, RequestException) as error:
        with suppress(APIError, RequestException):
            container.remove(force=True)
        raise refusal(error) if isinstance(error, APIError) else MachineError(reason(error)) from error
    forwarded = 0
    while waiter.is_alive():
        for number in requests.taken[forwarded:]:
            forwarded += 1
            with suppress(APIError, RequestException):  # it has just ended
                container.kill(number)
        waiter.join(POLL)
    printer.join(LAST_LINES)
    return ended[0] if ended else None


def print_all(output: object) -> None:
    """Pass what a container prints on, to where this process's output goes, as it comes."""
    with suppress(OSError):  # the engine went away
        for stream, text in frames_iter(output, tty=False):
            with suppress(OSError):  # who has read this process's output is gone; the container is not held up for that
                os.write(2 if stream == STDERR else 1, text)


# what earlier starts have left


def clear_away(engine: docker.DockerClient) -> None:
    """End and remove containers of this repository whose starter is gone, so that what they train is free.

    They save and end by themselves; the one that was made and never started does not, nor one whose engine was
    restarted around it.
    """
    ours = {"label": f"{REPOSITORY}={root().resolve()}"}
    for container in engine.containers.list(all=True, filters=ours, ignore_removed=True):
        if lives(container.labels[STARTED_BY]):
            continue
        with suppress(NotFound):
            if container.status == "running":
                print(f"waiting for container {container.short_id}, whose starter is gone, to save", flush=True)
                with suppress(APIError):  # it has just ended
                    container.kill(ORPHANED)
                container.wait()
            container.remove(force=True)


def this_process() -> str:
    """Return a name for this process that no later one has."""
    return f"{os.getpid()} {psutil.Process().create_time()}"


def lives(name: str) -> bool:
    """Return whether a process lives, by what `this_process` said in it."""
    pid, _, began = name.partition(" ")
    with suppress(psutil.NoSuchProcess):
        return str(psutil.Process(int(pid)).create_time()) == began
    return False
