"""The API as OpenAI's own client meets it, and the limits before it."""

import dataclasses
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from servers import started_server, wait_until, whole_app
from tiny_gguf import ACCENTS, FAREWELL, write_random

from common.errors import UserError
from llama.batch import FEWEST
from serve.engine import Engine
from serve.http.metrics import Metrics
from serve.http.middleware import CLIENTS, Rate
from serve.models.registry import Model, find_models
from serve.settings import Settings

HI: Any = [{"role": "user", "content": "hi"}]
GREEDY: Any = {"model": "random", "messages": HI, "temperature": 0, "max_tokens": 20}
FOR_EVER: Any = {"model": "endless", "messages": HI, "max_tokens": 1 << 17}


@pytest.fixture(scope="module")
def api(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server where one answer is given and one may wait."""
    log = tmp_path_factory.mktemp("api") / "log.txt"
    limits = {"context": 1 << 18, "max_tokens": 1 << 17, "slots": 1, "queue": 1, "rate": 0}
    with started_server(log, models=folder, model="random", **limits) as (url, _):
        yield url
        assert log.read_text().splitlines() == [f"Tunesmith is on {url} (Ctrl-C stops it)"]


@pytest.fixture(scope="module")
def client(api: str) -> OpenAI:
    return OpenAI(base_url=f"{api}/v1", api_key="none", max_retries=0)


def metric(url: str, line: str) -> float:
    """One line's figure; 0 while there is none."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return next((float(text.split()[-1]) for text in lines if text.startswith(f"{line} ")), 0)


def asking(url: str, body: Any) -> socket.socket:
    """A connection on which something was asked; leaving its `with` hangs up."""
    address, text = urlsplit(url), json.dumps(body)
    connection = socket.create_connection((str(address.hostname), address.port or 80))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n"
    connection.sendall(f"{head}Content-Type: application/json\r\n\r\n{text}".encode())
    return connection


def test_an_answer_comes_with_what_it_took(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="nested/accents", messages=HI)
    assert (answer.object, answer.model) == ("chat.completion", "nested/accents")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", ACCENTS, "stop")
    assert answer.usage
    prompt = len("user" + "\n\n" + "hi" + "assistant" + "\n\n") + 6
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, 9)
    assert answer.usage.total_tokens == prompt + 9


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY)
    chunks = list(client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True}))
    *said, figures = chunks
    assert said[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in said) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in said if chunk.choices[0].finish_reason] == ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert not figures.choices
    assert figures.usage
    assert whole.usage
    assert figures.usage.completion_tokens == whole.usage.completion_tokens == 20
    assert figures.usage.prompt_tokens_details
    assert figures.usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - FEWEST


def test_a_stream_without_usage_has_none(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(**GREEDY, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_a_text_goes_on_without_the_chat_template(client: OpenAI) -> None:
    asked: Any = {"model": "endless", "prompt": "hi\n", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**asked)
    assert (whole.object, whole.choices[0].text) == ("text_completion", f" {FAREWELL}")
    assert whole.usage
    assert whole.usage.prompt_tokens == 1 + len("hi\n")  # BOS
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)) == f" {FAREWELL}"


def test_texts_come_in_parts_and_from_developers_too(client: OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    plain: Any = [{"role": "system", "content": "brief"}, {"role": "user", "content": "one\ntwo"}]
    same: Any = [{"role": "developer", "content": "brief"}, {"role": "user", "content": parts}]
    answers = [client.chat.completions.create(**GREEDY | {"messages": messages}) for messages in (plain, same)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


@pytest.mark.parametrize("stop", ["thanks for", ["nothing", "thanks for"]])
def test_an_answer_ends_before_a_stop_text(client: OpenAI, stop: Any) -> None:
    answer = client.chat.completions.create(model="endless", messages=HI, temperature=0, max_tokens=20, stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (" So long, and ", "stop")


def test_a_seed_repeats_an_answer_and_settings_change_it(client: OpenAI) -> None:
    def draw(**settings: Any) -> str | None:
        return client.chat.completions.create(**GREEDY | settings).choices[0].message.content

    assert draw(temperature=1, seed=7) == draw(temperature=1, seed=7) != draw(temperature=1, seed=8)
    assert draw(temperature=1, seed=7, top_p=0) == draw() != draw(frequency_penalty=2, presence_penalty=2)
    assert draw(max_completion_tokens=3) == draw(max_tokens=3)


def test_models_are_listed(client: OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["endless", "nested/accents", "other", "random"]
    assert all(model.owned_by == "tunesmith" and model.created > 1.7e9 for model in models)
    assert client.models.retrieve("random").id == "random"
    with pytest.raises(openai.NotFoundError, match="no model named 'none'"):
        client.models.retrieve("none")


@pytest.mark.parametrize(
    ("fields", "text", "code", "param"),
    [
        ({"temperature": 2.5}, "temperature must be a number from 0 to 2, not 2.5", "invalid_value", "temperature"),
        ({"temperature": "hot"}, "temperature: Input should be a valid number", "invalid_type", "temperature"),
        ({"max_tokens": 0}, "max tokens must be a whole number from 1 to 131072", "invalid_value", "max_tokens"),
        ({"messages": []}, "There is no message to answer", "invalid_value", "messages"),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, r"takes 6\d\d", "context_length_exceeded", "messages"),
        (
            {"messages": [*HI, {"content": "x"}]},
            r"messages\[1\].role: Field",
            "missing_required_parameter",
            "messages[1].role",
        ),
        ({"verbosity": "high"}, "verbosity is not supported", "unsupported_parameter", "verbosity"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused(
    client: OpenAI, fields: dict, text: str, code: str, param: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=text) as raised:
        client.chat.completions.create(**{**GREEDY, "extra_body": fields}, stream=stream)
    assert (raised.value.type, raised.value.code, raised.value.param) == ("invalid_request_error", code, param)


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(
        openai.NotFoundError, match=r"no model named 'gpt-9'; there is endless, nested/accents"
    ) as raised:
        client.chat.completions.create(**GREEDY | {"model": "gpt-9"})
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("chat/completions", b"{", 400, "The body must be JSON."),
        ("chat/completions", b"[" * 100_000, 400, "parsing the body"),
        ("chat/completions", b"[]", 400, "The body: Input should be"),
        ("chat/completions", b"{}", 400, "model: Field required."),
        ("images", b"{}", 404, "Not Found"),
        ("models", b"{}", 405, "Method Not Allowed"),
    ],
)
def test_errors_have_one_shape(api: str, path: str, body: bytes, status: int, text: str) -> None:
    answer = httpx.post(f"{api}/v1/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert text in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_frees_its_place(api: str, stream: bool) -> None:
    before = metric(api, 'tunesmith_requests_total{model="endless",outcome="cancelled"}')
    with asking(api, FOR_EVER | {"stream": stream}):
        wait_until(lambda: metric(api, "tunesmith_answering") == 1)
    wait_until(lambda: metric(api, "tunesmith_answering") == 0, 20)
    wait_until(lambda: metric(api, 'tunesmith_requests_total{model="endless",outcome="cancelled"}') == before + 1, 20)


def test_one_who_leaves_while_waiting_costs_nothing_and_beyond_the_queue_one_is_told_when(
    api: str, client: OpenAI
) -> None:
    answering = client.chat.completions.create(**FOR_EVER, stream=True)
    next(iter(answering))
    with asking(api, FOR_EVER | {"stream": True}):
        wait_until(lambda: metric(api, "tunesmith_waiting") == 1)
        with pytest.raises(openai.APIStatusError, match=r"The queue is full \(1 wait\): try again in \d+ s") as raised:
            client.chat.completions.create(**GREEDY)
        assert raised.value.status_code == 503
        assert int(raised.value.response.headers["Retry-After"]) >= 1
    answering.close()
    wait_until(lambda: metric(api, "tunesmith_waiting") + metric(api, "tunesmith_answering") == 0, 20)
    assert client.chat.completions.create(model="nested/accents", messages=HI).choices[0].message.content == ACCENTS


def test_metrics_count_what_was_asked(api: str, client: OpenAI) -> None:
    names = ['requests_total{model="other",outcome="length"}', 'requests_total{model="other",outcome="refused"}']
    names += [f'{name}{{model="other"}}' for name in ("prompt_tokens_total", "cached_prompt_tokens_total")]
    names += [
        f'{name}{{model="other"}}'
        for name in ("generated_tokens_total", "first_token_seconds_count", "token_seconds_count")
    ]
    before = [metric(api, f"tunesmith_{name}") for name in names]
    asked = GREEDY | {"model": "other", "messages": [{"role": "user", "content": "count me"}]}
    usages = [client.chat.completions.create(**asked).usage for _ in range(2)]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**asked | {"temperature": 9})
    grown = [metric(api, f"tunesmith_{name}") - was for name, was in zip(names, before, strict=True)]
    prompt = usages[0].prompt_tokens  # type: ignore[union-attr]
    cached = sum(usage.prompt_tokens_details.cached_tokens for usage in usages)  # type: ignore[union-attr]
    assert grown == [2, 1, 2 * prompt, cached, 40, 2, 2]
    assert cached >= prompt - FEWEST


def test_requests_are_taken_as_they_are_meant(api: str) -> None:
    for path in ("v1/models", "v1/models/random", "healthz", "readyz", "health", "metrics"):
        plain, head = httpx.get(f"{api}/{path}"), httpx.head(f"{api}/{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == plain.headers["content-type"]
        assert httpx.get(f"{api}/{path}/").status_code == 200
    assert httpx.get(f"{api}/v1/models/").json() == httpx.get(f"{api}/v1/models").json()
    whole = httpx.post(f"{api}/v1/chat/completions/", json=GREEDY)
    assert whole.json()["choices"]


@pytest.mark.parametrize(
    "lines",
    [
        "OPTIONS * HTTP/1.1",
        "GET /v1/models HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: aGVsbG8=",
        "GET /v1/models HTTP/1.1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    ],
    ids=["options", "websocket", "h2c"],
)
def test_what_proxies_and_scanners_ask_is_answered_and_not_logged(api: str, lines: str) -> None:
    """The log is looked at when the server ends."""
    address = urlsplit(api)
    with socket.create_connection((str(address.hostname), address.port or 80)) as connection:
        connection.sendall(f"{lines}\r\nHost: x\r\nConnection: Upgrade, close\r\n\r\n".encode())
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_packed_body_is_unpacked(api: str, packing: str) -> None:
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}[packing]
    headers = {"Content-Type": "application/json", "Content-Encoding": packing}

    def post(body: bytes) -> httpx.Response:
        return httpx.post(f"{api}/v1/chat/completions", content=body, headers=headers)

    assert post(packed(json.dumps(GREEDY).encode())).json()["choices"]
    assert post(packed(b" " * 1_000_001)).status_code == 413
    for wrong, text in ((b"no such thing", "not packed as"), (packed(b"{}")[:-1], "cut short")):
        assert (post(wrong).status_code, text in post(wrong).text) == (400, True)


def test_a_body_packed_otherwise_is_refused(api: str) -> None:
    answer = httpx.post(f"{api}/v1/completions", content=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_the_server_says_how_it_is(api: str) -> None:
    assert httpx.get(f"{api}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{api}/readyz").status_code == httpx.get(f"{api}/health").status_code == 200
    assert httpx.get(f"{api}/metrics").headers["content-type"].startswith("text/plain")
    assert all(httpx.get(f"{api}/{path}").status_code == 404 for path in ("v1/docs", "v1/openapi.json"))


def test_no_other_site_may_ask(api: str) -> None:
    asked = httpx.options(
        f"{api}/v1/chat/completions", headers={"Origin": "http://evil", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/gradio_api/queue/join"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_too_large_is_refused(api: str, path: str, chunked: bool) -> None:
    body = [b" " * 400_000] * 3
    answer = httpx.post(
        f"{api}{path}",
        content=iter(body) if chunked else b"".join(body),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert "A request's body can have 1000000 bytes at most" in answer.text


@pytest.fixture(scope="module")
def shared(models: dict[str, Model], settings: Settings) -> Iterator[tuple[Engine, Settings]]:
    with Engine(models, settings) as engine:
        yield engine, settings


def gated(shared: tuple[Engine, Settings], **changed: Any) -> TestClient:
    """A client of an application with other settings, in this process."""
    engine, settings = shared
    return TestClient(whole_app(engine, dataclasses.replace(settings, **changed)))


def test_beyond_the_rate_one_is_told_when_to_come_again(shared: tuple[Engine, Settings]) -> None:
    client = gated(shared, rate=3)
    asked = [client.get("/v1/models", headers={"X-Forwarded-For": f"1.1.1.{i}"}) for i in range(3)]
    assert [answer.status_code for answer in asked] == [200] * 3
    for refused in (client.get("/v1/models"), client.post("/gradio_api/queue/join"), client.post("/login")):
        assert refused.status_code == 429
        assert "At most 3 requests a minute are answered" in refused.text
        assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert client.get("/healthz").status_code == 200


def test_answers_count_and_not_only_who_asks_for_them(shared: tuple[Engine, Settings]) -> None:
    """What goes beyond a minute's has to come in again before the next request; none is too large for ever."""
    texts = {"model": "random", "prompt": ["a", "b"], "max_tokens": 1, "n": 2}
    client = gated(shared, rate=5)
    assert client.post("/v1/completions", json=texts).status_code == 200
    assert client.get("/v1/models").status_code == 200
    assert client.get("/v1/models").status_code == 429
    client = gated(shared, rate=3)
    assert client.post("/v1/completions", json=texts).status_code == 200
    refused = client.get("/v1/models")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "40")


def test_behind_a_proxy_each_client_has_its_rate_and_cannot_take_anothers(
    shared: tuple[Engine, Settings],
) -> None:
    client = gated(shared, rate=1, proxy=1)

    def ask(forwarded: str) -> int:
        return client.get("/v1/models", headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask("1.1.1.1"), ask("2.2.2.2"), ask("9.9.9.9, 1.1.1.1")] == [200, 200, 429]


def test_a_bucket_fills_again_and_not_every_client_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("serve.http.middleware.time.monotonic", lambda: now[0])
    rate = Rate(2)
    assert [rate.take("a") for _ in range(3)] == [0, 0, 30]
    now[0] = 29
    assert rate.take("a") == 1
    now[0] = 30
    assert [rate.take("a"), rate.take("a")] == [0, 30]
    for i in range(2 * CLIENTS):
        rate.take(str(i))
    assert len(rate._buckets) == CLIENTS


def test_a_key_opens_the_api(shared: tuple[Engine, Settings]) -> None:
    client = gated(shared, api_key="secret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}, {"x-api-key": "wrong"}):
        refused = client.get("/v1/models", headers=headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    for headers in ({"Authorization": "Bearer secret"}, {"x-api-key": "secret"}):
        assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.post("/tokenize", json={"content": "hi"}).status_code == 401


def test_a_login_closes_page_and_api(shared: tuple[Engine, Settings]) -> None:
    client = gated(shared, login="me:pass:word")
    closed = client.get("/v1/models", headers={"Authorization": "Bearer "})
    assert closed.status_code == 401
    assert "no SERVE_API_KEY" in closed.json()["error"]["message"]
    assert client.post("/gradio_api/queue/join", json={}).status_code == 401
    assert client.post("/login", data={"username": "me", "password": "no"}).status_code == 400
    gradio = (
        "app_id",
        "startup-events",
        "heartbeat/any",
        "info",
        "openapi.json",
        "user",
        "token",
        "queue/data?session_hash=1",
    )
    for path in ("/openapi.json", "/docs", "/config", "/monitoring", *(f"/gradio_api/{name}" for name in gradio)):
        assert client.get(path).status_code == 401, path
    for name in ("cancel", "reset", "queue/join", "run/chat", "call/chat", "vibe-edit", "stream/any/close"):
        assert client.post(f"/gradio_api/{name}", json={}).status_code == 401, name
    for path in ("/", "/theme.css", "/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200, path
    assert "accents" not in client.get("/").text  # it shows the login, and no model

    entered = client.post("/login", data={"username": "me", "password": "pass:word"})
    assert entered.status_code == 200
    known = {"Cookie": "; ".join(f"{name}={value}" for name, value in entered.cookies.items())}
    assert client.get("/gradio_api/app_id", headers=known).status_code == 200
    assert client.get("/logout", headers=known | {"Sec-Fetch-Dest": "image"}).status_code == 401  # in an answer
    assert client.get("/gradio_api/app_id", headers=known).status_code == 200


def test_a_login_without_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match=r"^SERVE_LOGIN: must be user:password$"):
        Settings.from_env({"SERVE_LOGIN": "hunter2"})
    assert "hunter2" not in repr(Settings(login="me:hunter2", api_key="hunter2"))


def test_a_failure_is_told_in_one_line(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("llama_decode returned -3")

    app = whole_app(engine, settings)
    client = TestClient(app, raise_server_exceptions=False)
    monkeypatch.setattr("llama.model.LlamaModel.decode", fail)
    failed = client.post("/v1/chat/completions", json=GREEDY)
    assert (failed.status_code, failed.json()["error"]["message"]) == (500, "The server failed to answer.")
    monkeypatch.undo()
    assert client.post("/v1/chat/completions", json=GREEDY).status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_template_that_fails_is_the_servers_fault_and_one_that_is_missing_leaves_texts(
    tmp_path: Path, stream: bool
) -> None:
    write_random(tmp_path / "base.gguf", template=None)
    write_random(tmp_path / "faulty.gguf", template="{{ 'a' + 1 }}")
    write_random(tmp_path / "broken.gguf", template="{% if %}")
    settings = Settings(models=str(tmp_path), model="base", max_loaded_models=3)
    models = find_models(tmp_path)
    metrics = Metrics()
    with Engine(models, settings, metrics.observe) as engine:
        client = TestClient(whole_app(engine, settings))

        def failed(model: str) -> tuple[int, str, str]:
            answer = client.post("/v1/chat/completions", json=GREEDY | {"model": model, "stream": stream})
            error = answer.json()["error"]
            assert str(tmp_path) not in answer.text
            return answer.status_code, error["type"], error["message"]

        status, kind, message = failed("base")
        assert (status, kind) == (400, "invalid_request_error")
        assert message.startswith("This model has no chat template, so it cannot chat: ask another one")
        fault = "The model's chat template fails:"
        status, kind, message = failed("faulty")
        assert (status, kind) == (500, "server_error")
        assert message == f'{fault} TypeError: can only concatenate str (not "int") to str'
        assert failed("broken")[2].startswith(f"{fault} TemplateSyntaxError: ")
        for model in ("base", "faulty", "broken"):
            text = {"model": model, "prompt": "hi", "temperature": 0, "stream": stream}
            assert client.post("/v1/completions", json=text).status_code == 200
        assert 'tunesmith_requests_total{model="faulty",outcome="error"} 1.0' in metrics.text().decode()


def test_a_stream_cut_off_ends_with_the_error(engine: Engine, settings: Settings) -> None:
    def close_while_it_answers() -> None:
        wait_until(lambda: engine.load().answering)
        engine.close()

    client = TestClient(whole_app(engine, settings))
    threading.Thread(target=close_while_it_answers).start()
    answer = client.post("/v1/chat/completions", json=FOR_EVER | {"stream": True})
    last = [line for line in answer.iter_lines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["message"] == "The server is stopping."


def test_a_server_that_stops_is_not_ready_and_says_so(models: dict[str, Model], settings: Settings) -> None:
    with Engine(models, settings) as engine:
        client = TestClient(whole_app(engine, settings))
    assert client.get("/readyz").status_code == 503
    stopped = client.post("/v1/chat/completions", json=GREEDY)
    assert (stopped.status_code, stopped.json()["error"]["message"]) == (503, "The server is stopping.")
