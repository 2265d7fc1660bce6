"""Starts the real server, `python -m serve`, as a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**settings: object) -> dict[str, str]:
    given = {f"SERVE_{name.upper()}": str(value) for name, value in settings.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("SERVE_")} | given


def run_server(**settings: object) -> subprocess.CompletedProcess[str]:
    """`python -m serve` where it is expected to end by itself."""
    command = [sys.executable, "-m", "serve"]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def started_server(log: Path, **settings: object) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server's URL and process, from ready to stopped."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        command = [sys.executable, "-m", "serve"]
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment(port=port, **settings), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: answers(f"{url}/healthz") or server.poll() is not None)
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
