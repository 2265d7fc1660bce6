"""Starts the real server, `python -m serve`, as a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI

from serve.engine import Engine
from serve.http.app import add_api, add_page, build_app
from serve.http.metrics import Metrics
from serve.settings import Settings

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(variables: Mapping[str, str] | None = None, **settings: object) -> dict[str, str]:
    """What a server runs in: settings, and other variables."""
    settings = {"feedback": "off"} | settings
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SERVE_")}
    given = {f"SERVE_{name.upper()}": str(value) for name, value in settings.items()}
    return {**inherited, **given, **(variables or {})}


def run_server(variables: Mapping[str, str] | None = None, **settings: object) -> subprocess.CompletedProcess[str]:
    """`python -m serve` where it is expected to end by itself."""
    command, given = [sys.executable, "-m", "serve"], environment(variables, **settings)
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def started_server(
    log: Path,
    until: str = "/",
    variables: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
    **settings: object,
) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server's URL and process, from its answering a path (the page is the last to come) to its end.

    `within` is what its command line begins with, see mounts.py.
    """
    port = settings.pop("port", 0) or free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"drain": 0} | settings  # an answer that never ends would keep it from ending
    command, given = [*within, sys.executable, "-m", "serve"], environment(variables, port=port, **settings)
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=ROOT, env=given, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: answers(f"{url}{until}") or server.poll() is not None)
        assert server.poll() is None, log.read_text()
        yield url, server
    finally:
        server.terminate()
        server.wait(20)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http, to this machine
            return response.status == 200
    except OSError:
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Generous, for a machine with other work; it fails only where the condition never comes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def whole_app(engine: Engine, settings: Settings) -> FastAPI:
    """The application in this process, as it is when the server has started."""
    app = build_app(settings)
    add_api(app, engine, settings, Metrics())
    add_page(app, engine, settings)
    return app
