"""The fields that say what an answer must look like, as programs write them."""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from pydantic import BaseModel, Field
from servers import whole_app

from serve.engine import Engine
from serve.models.registry import Model
from serve.settings import Settings

ASKED: Any = {"model": "random", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 200}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
DEEP = '{"items":' * 200 + "{}" + "}" * 200
ANSWER = '{"a":1}', '{"a":2}', '{"a": 1}', '{"a": 2}'


@pytest.fixture(scope="module")
def client(models: dict[str, Model]) -> Iterator[TestClient]:
    limits = Settings(model="random", max_tokens=256, rate=0, context=1 << 10)
    with Engine(models, limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)


def post(client: TestClient, path: str = "chat/completions", **fields: Any) -> Any:
    return client.post(f"/v1/{path}", json=ASKED | fields)


def said(client: TestClient, **fields: Any) -> str:
    answer = post(client, **fields)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "stop"
    return choice["message"]["content"]


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"json_schema": SCHEMA},
        {"grammar": 'root ::= "{\\"a\\":" " "? ("1" | "2") "}"'},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"guided_regex": r'\{"a": ?[12]\}'},
        {"guided_choice": list(ANSWER)},
        {"guided_grammar": 'root ::= "{\\"a\\":" [12] "}"'},
        {"structured_outputs": {"json": SCHEMA}},
        {"structured_outputs": {"regex": r'\{"a":[12]\}', "json": None}},
        {"structured_outputs": {"choice": list(ANSWER)}},
        {"structured_outputs": {"grammar": 'root ::= "{\\"a\\":" [12] "}"', "json_object": False}},
    ],
)
def test_each_field_is_held_to(client: TestClient, fields: dict) -> None:
    assert said(client, **fields) in ANSWER
    assert said(client, **fields, temperature=1, seed=5) in ANSWER


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}]
)
def test_an_object_is_one(client: TestClient, fields: dict) -> None:
    ends_soon = {"logit_bias": {str(ord("}")): 100}}
    assert json.loads(said(client, **fields, **ends_soon)) == {}


def test_texts_have_forms_too_and_streams(client: TestClient) -> None:
    answer = post(client, "completions", prompt="hi", messages=None, json_schema=SCHEMA, max_tokens=50)
    assert answer.json()["choices"][0]["text"] in ANSWER
    lines = post(client, json_schema=SCHEMA, stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) in ANSWER


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"response_format": {"type": "xml"}}, "unsupported_value", "response_format.type"),
        ({"response_format": {}}, "unsupported_value", "response_format.type"),
        ({"response_format": "json"}, "invalid_type", "response_format"),
        ({"response_format": {"type": "json_object", "x": 1}}, "unknown_parameter", "response_format.x"),
        ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "missing_required_parameter",
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "x": 1}}}, "unknown_parameter",
         "response_format.json_schema.x"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"items": {"not": {}}}}}},
         "invalid_value", "response_format.json_schema.schema.items.not"),
        ({"grammar": "root ::= root"}, "invalid_value", "grammar"),
        ({"grammar": "root := x"}, "invalid_value", "grammar"),
        ({"grammar": 5}, "invalid_type", "grammar"),
        ({"json_schema": {"type": "x"}}, "invalid_value", "json_schema.type"),
        ({"guided_json": "{"}, "invalid_value", "guided_json"),
        ({"guided_json": DEEP}, "invalid_value", "guided_json"),
        ({"json_schema": {"const": float("inf")}}, "invalid_value", "json_schema"),
        ({"response_format": {"type": "json_object", "schema": 123}}, "invalid_value", "response_format.schema"),
        ({"response_format": {"type": "json_object", "schema": {"type": 123}}}, "invalid_value",
         "response_format.schema.type"),
        ({"guided_regex": "("}, "invalid_value", "guided_regex"),
        ({"guided_choice": []}, "invalid_type", "guided_choice"),
        ({"structured_outputs": {"structural_tag": "x"}}, "unsupported_parameter", "structured_outputs.structural_tag"),
        ({"structured_outputs": {"choice": [1]}}, "invalid_type", "structured_outputs.choice"),
        ({"json_schema": {}, "grammar": 'root ::= "x"'}, "invalid_value", "json_schema"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_none_is_refused_by_name(client: TestClient, fields: dict, code: str, param: str, stream: bool) -> None:
    body = json.dumps(ASKED | fields | {"stream": stream})  # with Infinity where it is given
    answer = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Note(BaseModel):
    text: str = Field(max_length=8)
    moods: list[Mood] = Field(max_length=2)
    inner: "Note | None" = None


def test_openais_client_parses_what_it_asked_for(server: str) -> None:
    client = OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    asked: Any = ASKED | {"response_format": Note, "max_tokens": 2_000, "logit_bias": {str(ord("}")): 20}}
    whole = client.chat.completions.parse(**asked).choices[0].message.parsed
    assert isinstance(whole, Note)
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == whole


@pytest.mark.parametrize("more", [{}, {"min_tokens": 5}, {"ignore_eos": True}])
def test_a_beginning_that_is_whole_is_gone_on_with_by_nothing(client: TestClient, more: dict) -> None:
    begun = [*ASKED["messages"], {"role": "assistant", "content": '{"a":1}'}]
    assert said(client, messages=begun, json_schema=SCHEMA, **more) == ""
