"""Whatever a program sends, it gets an answer or an error that says what is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import whole_app

from serve.engine import Engine
from serve.http import fields
from serve.http.embeddings import EmbeddingsRequest
from serve.http.messages import MessagesRequest
from serve.http.requests import DetokenizeRequest
from serve.http.responses import ResponsesRequest
from serve.models.registry import Model
from serve.settings import Settings

PATHS = st.sampled_from(["/v1/chat/completions", "/v1/completions"])
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
ROLE = st.sampled_from(["user", "assistant", "developer"])
MESSAGE = st.fixed_dictionaries({"role": ROLE, "content": TEXT})
VALID = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["random", "other"]),
        "messages": st.lists(MESSAGE, max_size=2).map(lambda turns: [*turns, {"role": "user", "content": "hi"}]),
        "prompt": TEXT,
        "max_tokens": st.integers(1, 8),
    },
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "top_k": st.integers(-1, 100),
        "min_p": st.floats(0, 1),
        "repeat_penalty": st.floats(0.5, 2),
        "logit_bias": st.dictionaries(st.integers(0, 260).map(str), st.floats(-100, 100), max_size=3),
        "n": st.integers(1, 3),
        "continue_final_message": st.none() | st.just(False),
        "stop": st.text(min_size=1, max_size=3) | st.lists(st.text(min_size=1, max_size=3), max_size=4),
        "frequency_penalty": st.floats(-2, 2),
        "presence_penalty": st.floats(-2, 2),
        "stream": st.booleans(),
        "response_format": st.just({"type": "json_object"}),
    },
)
FIELDS = ["model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop"]
FIELDS += ["frequency_penalty", "stream", "stream_options", "n", "tools", "logit_bias", "response_format", "user"]
FIELDS += ["tool_choice", "functions", "function_call", "grammar", "json_schema", "structured_outputs", "guided_choice"]
FIELDS += ["top_k", "logprobs", "top_logprobs", "chat_template_kwargs", "reasoning_effort", "continue_final_message"]
WRONG = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=1)
OTHERS = {"/v1/chat/completions": "prompt", "/v1/completions": "messages"}  # the field that the other path has
KEYWORDS = ["type", "properties", "items", "enum", "anyOf", "minimum", "maxLength", "pattern", "$ref", "required"]
FORMS = st.one_of(
    st.just({}),
    st.builds(lambda text: {"grammar": text}, st.text(max_size=20) | st.from_regex(r"\Aroot ::= [a(\[\"|*{}]{1,12}\Z")),
    st.builds(lambda text: {"guided_regex": text}, st.text("ab(|)[]^$*+?{1,}\\d.-", max_size=12)),
    st.builds(lambda schema: {"json_schema": schema}, st.dictionaries(st.sampled_from(KEYWORDS), JSON, max_size=3)),
)
NEAR = st.builds(lambda valid, wrong, form: valid | wrong | form, VALID, WRONG, FORMS)
BOUNDED = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def client(models: dict[str, Model], settings: Settings) -> Iterator[TestClient]:
    limits = Settings(models=settings.models, model="random", max_tokens=8, max_loaded_models=2, rate=0)
    with Engine(models, limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)


def check(answer: Any) -> None:
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        assert answer.json()["choices"]


@BOUNDED
@given(PATHS, VALID)
def test_valid_bodies(client: TestClient, path: str, body: Any) -> None:
    body = {name: value for name, value in body.items() if name != OTHERS[path]}
    if path == "/v1/completions":
        body.pop("continue_final_message", None)
    answer = client.post(path, content=encoded(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    check(answer)


@BOUNDED
@given(PATHS, NEAR)
def test_near_valid_bodies(client: TestClient, path: str, body: Any) -> None:
    body = {name: value for name, value in body.items() if name != OTHERS[path]}
    check(client.post(path, content=encoded(body), headers={"Content-Type": "application/json"}))


@BOUNDED
@given(st.dictionaries(st.sampled_from(["content", "prompt", "messages", "add_special", "model"]), TEXT | JSON))
def test_any_text_to_read(client: TestClient, body: Any) -> None:
    answer = client.post("/tokenize", content=encoded(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404), answer.text
    assert ("tokens" in answer.json()) == (answer.status_code == 200)


@BOUNDED
@given(PATHS, JSON)
def test_any_json(client: TestClient, path: str, body: Any) -> None:
    check(client.post(path, content=encoded(body), headers={"Content-Type": "application/json"}))


@BOUNDED
@given(PATHS, st.binary(max_size=100), st.sampled_from(["application/json", "text/plain", "x"]))
def test_any_bytes(client: TestClient, path: str, body: bytes, kind: str) -> None:
    check(client.post(path, content=body, headers={"Content-Type": kind}))


TURN: Any = [{"role": "user", "content": "hi"}]
# What the other ways in take; each is asked with a field or two of its own written otherwise.
WAYS: dict[str, Any] = {
    "/v1/messages": {"model": "random", "messages": TURN, "max_tokens": 4},
    "/v1/messages/count_tokens": {"model": "random", "messages": TURN},
    "/v1/responses": {"model": "random", "input": "hi", "max_output_tokens": 4},
    "/v1/responses/input_tokens": {"model": "random", "input": "hi"},
    "/v1/embeddings": {"model": "vectors", "input": "hi"},
    "/detokenize": {"tokens": [104, 105]},
}
NAMES = {
    "/v1/messages": [*MessagesRequest.model_fields, *fields.MESSAGES_REFUSED],
    "/v1/responses": [*ResponsesRequest.model_fields, *fields.RESPONSES_REFUSED],
    "/v1/embeddings": [*EmbeddingsRequest.model_fields, *fields.EMBEDDINGS_REFUSED],
    "/detokenize": [*DetokenizeRequest.model_fields],
}
KIND = st.sampled_from(["text", "thinking", "input_text", "output_text", "refusal", "reasoning", "message", "image"])
PART = st.dictionaries(st.sampled_from(["text", "thinking", "refusal", "citations"]), TEXT | JSON, max_size=2)
PARTS = st.lists(st.builds(lambda part, kind: part | {"type": kind}, PART, KIND), max_size=3)
CONTENT = TEXT | PARTS | JSON
ITEM = st.fixed_dictionaries(
    {}, optional={"role": ROLE | TEXT, "type": KIND, "content": CONTENT, "summary": CONTENT, "id": SCALAR}
)
SETTING = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("type", "effort", "format", "summary", "verbosity", "budget_tokens"), SCALAR | JSON)
)


@st.composite
def ways(draw: st.DrawFn) -> tuple[str, Any]:
    path = draw(st.sampled_from(sorted(WAYS)))
    names = next(names for beginning, names in NAMES.items() if path.startswith(beginning))
    values = JSON | CONTENT | st.lists(ITEM, max_size=3) | SETTING
    return path, WAYS[path] | draw(st.dictionaries(st.sampled_from(names), values, max_size=2))


@BOUNDED
@given(ways())
def test_the_other_ways_in(talker: TestClient, asked: tuple[str, Any]) -> None:
    path, body = asked
    answer = talker.post(path, content=encoded(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        last = json.loads(answer.text.split("data: ")[-1])["type"]
        assert last in ("message_stop", "response.completed", "response.incomplete")
    else:
        assert answer.json()


@pytest.mark.parametrize("body", ["{", "[]", "null", "1", '"x"', "[" * 5000, '{"model": NaN}', "\ud800"])
@pytest.mark.parametrize("path", sorted(WAYS))
def test_what_is_no_request(talker: TestClient, path: str, body: str) -> None:
    content = body.encode(errors="surrogatepass")
    answer = talker.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "fields", "told"),
    [
        ("/v1/completions", {"prompt": "\ud800", "echo": True, "max_tokens": 1}, ["choices", 0, "text"]),
        ("/v1/responses", {"input": "?", "metadata": {"half": "\ud800"}, "max_output_tokens": 1}, ["metadata", "half"]),
    ],
)
def test_half_a_character_is_told_as_it_came(talker: TestClient, path: str, fields: Any, told: list[Any]) -> None:
    headers = {"Content-Type": "application/json"}
    answer = talker.post(path, content=encoded({"model": "random", **fields}), headers=headers)
    assert answer.status_code == 200
    text = json.loads(answer.content)
    for step in told:
        text = text[step]
    assert text.startswith("\ud800")


def encoded(body: Any) -> bytes:
    """As JSON with NaN and lone surrogates, which Python reads too."""
    return json.dumps(body).encode()
