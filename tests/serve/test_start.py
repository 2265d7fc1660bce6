import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from servers import ROOT, answers, environment, free_port, started_server, wait_until

from serve.engine import Engine
from serve.http.app import add_api, build_app
from serve.http.metrics import Metrics
from serve.http.server import Server
from serve.models.registry import Model
from serve.settings import Settings


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """The URL of a Hub that takes calls and never answers: a start that waits for as long as a test wants."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_while_it_starts_the_server_is_alive_and_not_ready(silent_hub: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    given = environment({"HF_ENDPOINT": silent_hub, "HF_HOME": str(tmp_path)}, port=port, models="hf://owner/name@v1")
    server = subprocess.Popen([sys.executable, "-m", "serve"], cwd=ROOT, env=given, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: answers(f"{url}/healthz") or server.poll() is not None)
        page = httpx.get(url)
        assert (page.status_code, page.headers["Retry-After"]) == (503, "2")
        assert '<meta http-equiv="refresh" content="2">' in page.text
        assert httpx.get(f"{url}/readyz").status_code == 503
        refused = httpx.post(f"{url}/v1/chat/completions", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        server.send_signal(signal.SIGTERM)
        _, complaints = server.communicate(timeout=20)
        assert (server.returncode, complaints) == (0, b"")
    finally:
        server.kill()
        server.wait()


def test_the_api_answers_before_the_page(engine: Engine, models: dict[str, Model], settings: Settings) -> None:
    app = build_app(settings)
    client = TestClient(app)
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/v1/models", "/")] == [200, 503, 503, 503]
    add_api(app, engine, settings, Metrics())
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/v1/models", "/")] == [200, 200, 200, 503]


def test_without_gradio_there_is_the_api_and_a_word_of_what_is_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['gradio'] = None  # not to be imported\n")
    log, kept = tmp_path / "log.txt", tmp_path / "feedback"
    settings = {"models": folder, "feedback": kept, "embed": "https://intranet.example"}
    with started_server(log, variables={"PYTHONPATH": str(tmp_path)}, **settings) as (url, server):
        said = httpx.get(url)
        assert said.headers["content-type"].startswith("text/plain")
        assert said.text.startswith("Tunesmith, without its page: Gradio is not installed here.")
        named = [path for line in said.text.splitlines()[2:] for path in re.findall(r"/[\w/]+", line)]
        assert "/v1/messages" in named
        assert [path for path in named if httpx.options(url + path).status_code == 404] == []
        assert httpx.get(f"{url}/config").status_code == 404
        model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        question = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=question, timeout=60).json()
        assert answer["usage"]["completion_tokens"] > 0
        assert "pandas" not in Path(f"/proc/{server.pid}/maps").read_text()  # which Gradio would have brought
    lines = log.read_text().splitlines()
    assert lines[0] == "no page, since Gradio is not installed: the API alone"
    assert lines[1] == "warning: of no use without the page: SERVE_EMBED, SERVE_FEEDBACK"
    assert not kept.exists()


def test_what_a_start_would_enter_after_the_stop_is_not_entered() -> None:
    entered = []

    @asynccontextmanager
    async def page() -> AsyncIterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    async def stop_while_starting(server: Server) -> None:
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.startup([listener])
            await asyncio.to_thread(server.enter, page())
            assert entered == ["in"]
            await server.shutdown([listener])
        assert entered == ["in", "out"]
        await asyncio.to_thread(server.enter, page())
        await server._enter(page())  # what was on its way to the loop
        assert entered == ["in", "out"]

    asyncio.run(stop_while_starting(Server(build_app(Settings()), lambda server: None, Settings(drain=0))))


def test_a_start_that_the_stop_breaks_off_is_no_failure() -> None:
    def start(server: Server) -> None:
        server.should_exit = True  # as a signal sets it
        raise RuntimeError("Event loop is closed")

    server = Server(build_app(Settings()), start, Settings(drain=0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.run([listener])
    assert server.failure is None
