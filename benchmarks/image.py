"""The serve image: how large it is and of what, how long it takes to build and to start.

    python -m benchmarks.image             sizes, a build after a change of code, starts
    python -m benchmarks.image --variants few --cgroup-parent /bench    in little time, on a machine that others use

Both targets of Dockerfile.serve, the page and the API alone, are built, for all processors or with the few variants of
llama.cpp that are compiled already (14 MB less). Sizes are uncompressed. A start is timed from the request for the
container to /readyz, and to the first text of an answer that is asked for then: on two CPUs, with the 1B shape in
Q4_K_M and random weights, from the disk's cache. Figures are medians. Writes benchmarks/results/image.{json,md}.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import docker
import httpx
from docker.models.containers import Container

from benchmarks.processes import copy_files
from benchmarks.serve import REPOSITORY, make_model, processor
from common.files import write_json, write_text
from llama.cpus import usable_cpus

RESULT = REPOSITORY / "benchmarks/results/image.json"
DOCKERFILE = "Dockerfile.serve"
CHANGED = "serve/run.py"
TARGETS = ("page", "api")
GOALS = {"page": 400e6, "api": 270e6}  # bytes
CHANGE, READY, FIRST = 20, 3, 10  # seconds at most
LISTED = 10  # parts of an image that the page names
POLL = 0.01
PATIENCE = 120
QUESTION = "What is a container?"
# Runs in a container: bytes by package, and by where all else is.
PARTS = r"""
import collections, json, os, re
sizes = collections.Counter()
seen = set()
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = [name for name in folders if name not in ("proc", "sys", "dev", "models")]
    for path in (os.path.join(folder, name) for name in files):
        found = os.lstat(path)
        if found.st_ino in seen:
            continue
        seen.add(found.st_ino)
        package = re.match(r"/opt/venv/lib/[^/]+/site-packages/(\w+)", path)
        places = {"/usr/local/": "Python", "/app/": "Tunesmith", "/opt/venv/": "its environment"}
        other = next((name for place, name in places.items() if path.startswith(place)), "the system")
        sizes[package[1] if package else other] += found.st_size
print(json.dumps(sizes))
"""


@dataclass(frozen=True)
class Start:
    """Seconds from the request for a container."""

    ready: float
    first_text: float


@dataclass(frozen=True)
class Measured:
    """An image's figures."""

    bytes: int
    parts: dict[str, int]  # bytes, the largest first
    change_seconds: list[float]
    starts: list[Start]


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    date: str
    processor: str
    cpus: int
    load: float  # of the machine, in the minute before
    model: str
    variants: str  # of llama.cpp
    images: dict[str, Measured]


def main() -> None:
    """Measure, print the page and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="1b", help="1b, or the path of a GGUF")
    parser.add_argument("--variants", choices=["all", "few"], default="all", help="few: those of `make wheels`")
    parser.add_argument("--cgroup-parent", help="where containers share in the CPUs, if not with all others")
    parser.add_argument("--docker", default="docker", help="a client that builds with BuildKit")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-serve", help="that of bench-serve")
    parser.add_argument("--results", type=Path, default=RESULT.parent)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    model = make_model(arguments.model, arguments.folder.absolute(), "Q4_K_M")
    with tempfile.TemporaryDirectory() as name, closing(docker.from_env(timeout=PATIENCE)) as engine:
        context = Path(name) / "context"
        copy_files(context)  # without wheels, as after a clone
        if arguments.variants == "few":
            shutil.copytree(REPOSITORY / "wheels", context / "wheels", ignore=shutil.ignore_patterns("torch-*"))
        images = {}
        for target in TARGETS:
            tag = f"tunesmith-serve:bench-{target}"
            wanted = ("--build-arg", f"VARIANTS={arguments.variants}", "--target", target, "--tag", tag)
            build(arguments.docker, context, *wanted)
            changes = [after_change(arguments.docker, context, *wanted) for _ in range(arguments.rounds)]
            starts = [start(engine, tag, model, arguments.cgroup_parent) for _ in range(arguments.rounds)]
            size = engine.images.get(tag).attrs["Size"]
            images[target] = Measured(size, parts(engine, tag), changes, starts)
            engine.images.remove(tag)
    date = time.strftime("%Y-%m-%d")
    report = Report(date, processor(), usable_cpus(), round(load, 2), model.stem, arguments.variants, images)
    write_json(arguments.results / RESULT.name, asdict(report))
    write_text(arguments.results / RESULT.with_suffix(".md").name, page(report))
    print(page(report))


def build(client: str, context: Path, *arguments: str, dockerfile: str = DOCKERFILE) -> float:
    """Build, and return the seconds that it took."""
    command = [client, "build", "--quiet", "--file", dockerfile, *arguments, "."]
    began = time.monotonic()
    subprocess.run(
        command, cwd=context, env=os.environ | {"DOCKER_BUILDKIT": "1"}, stdout=subprocess.DEVNULL, check=True
    )
    return round(time.monotonic() - began, 1)


def after_change(client: str, context: Path, *arguments: str) -> float:
    """Return the seconds of a build after another line in the server's code."""
    with (context / CHANGED).open("a", encoding="utf-8") as file:
        file.write(f"# {time.monotonic_ns()}\n")
    return build(client, context, *arguments)


def parts(engine: docker.DockerClient, tag: str) -> dict[str, int]:
    """Return the bytes of what is in an image."""
    said = engine.containers.run(tag, ["python", "-c", PARTS], user="0", remove=True, network_mode="none")
    sizes: dict[str, int] = json.loads(said)
    return dict(sorted(sizes.items(), key=lambda part: -part[1]))


def start(engine: docker.DockerClient, tag: str, model: Path, parent: str | None = None) -> Start:
    """Return how long a container takes to be ready, and to the first text of an answer."""
    began = time.monotonic()
    container = engine.containers.run(
        tag,
        detach=True,
        nano_cpus=2_000_000_000,
        cgroup_parent=parent,
        ports={"7860/tcp": ("127.0.0.1", None)},
        volumes={str(model): {"bind": f"/models/{model.name}", "mode": "ro"}},
    )
    try:
        url = f"http://127.0.0.1:{port(container)}"
        while not is_ready(url):
            assert time.monotonic() - began < PATIENCE, container.logs().decode()
            time.sleep(POLL)
        ready = time.monotonic() - began
        first_text(url, model.stem)
        return Start(round(ready, 2), round(time.monotonic() - began, 2))
    finally:
        container.remove(force=True, v=True)


def port(container: Container) -> str:
    """Return the port of this machine by which a container is asked."""
    container.reload()
    return str(container.ports["7860/tcp"][0]["HostPort"])


def is_ready(url: str) -> bool:
    """Return whether a server takes questions."""
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz").is_success
    return False


def first_text(url: str, model: str) -> None:
    """Ask, and wait for the first text of the answer."""
    asked = {"model": model, "stream": True, "max_tokens": 16, "messages": [{"role": "user", "content": QUESTION}]}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, timeout=PATIENCE) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return
    raise AssertionError("an answer without a text")


def page(report: Report) -> str:
    """Return the report as a page."""
    lines = [
        "# The serve image",
        "",
        f"{report.date}; {report.processor}, {report.cpus} usable CPUs; load before: {report.load}. "
        f"{report.model}; {report.variants} variants of llama.cpp; medians. "
        "`benchmarks/image.py` says what is measured.",
        "",
        "| | goal | " + " | ".join(report.images) + " |",
        "|---|--:|" + "--:|" * len(report.images),
    ]
    images = report.images.values()
    sizes = [f"{image.bytes / 1e6:.0f} (goal: {GOALS[name] / 1e6:.0f})" for name, image in report.images.items()]
    lines.append(row("MB, uncompressed", "", sizes))
    changes = [f"{median(image.change_seconds):.1f}" for image in images]
    lines.append(row("seconds of a build after a change of code", f"{CHANGE}", changes))
    lines.append(
        row("seconds to /readyz", f"{READY}", [f"{median(one.ready for one in i.starts):.2f}" for i in images])
    )
    firsts = [f"{median(one.first_text for one in image.starts):.2f}" for image in images]
    lines.append(row("seconds to the first text", f"{FIRST}", firsts))
    for name, image in report.images.items():
        listed = list(image.parts.items())
        rest = sum(size for _, size in listed[LISTED:])
        named = [f"{part} {size / 1e6:.1f}" for part, size in [*listed[:LISTED], ("the rest", rest)]]
        lines += ["", f"What is in {name}, in MB: {', '.join(named)}."]
    return "\n".join(lines) + "\n"


def row(title: str, goal: str, figures: Sequence[str]) -> str:
    """Return a row of the page's table."""
    return f"| {title} | {goal} | " + " | ".join(figures) + " |"


if __name__ == "__main__":
    main()
