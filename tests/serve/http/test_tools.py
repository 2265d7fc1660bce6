"""Tools in a request, calls in its answers, and conversations that have both, as programs write them."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from pydantic import BaseModel, Field
from servers import whole_app
from tiny_gguf import CHAT_TEMPLATE, write_random, write_scripted

from serve.engine import Engine
from serve.models.registry import Model, find_models
from serve.settings import Settings

HI: Any = {"role": "user", "content": "hi"}
ASKED: Any = {"model": "roomy", "messages": [HI], "temperature": 0, "max_tokens": 200}
PARAMETERS: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": PARAMETERS}}
NOW: Any = {"type": "function", "function": {"name": "now"}}
TOOLS: Any = {"tools": [WEATHER, NOW]}
ALLOWED = "tool_choice.allowed_tools"
NAMED: Any = {"type": "function", "function": {"name": "weather"}}
RECITED = [
    "Look.",
    '<tool_call>\n{"name": "',
    'weather", "arguments": ',
    '{"city":',
    '"Rome",',
    '"unit":"C"}',
    "}\n</tool_call>",
]
# A template that lists tools, and writes calls behind a control token, as Mistral's and others' do.
MARK, MARK_TOKEN = "<|end_header_id|>", 259
MARKED = CHAT_TEMPLATE.replace(
    "{%- for message in messages %}",
    "{%- for tool in tools or [] %}{{ tool | tojson }}{%- endfor %}{%- for message in messages %}",
).replace(
    "{{- message['content'] + '<|eot_id|>' }}{% endgeneration %}",
    "{{- message['content'] }}{%- for call in message['tool_calls'] or [] %}"
    "{{- '" + MARK + '[{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson + '}]' }}{%- endfor %}{{- '<|eot_id|>' }}{% endgeneration %}",
)


@pytest.fixture(scope="module")
def client(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("callers")
    write_random(folder / "roomy.gguf", context=1 << 12)
    write_random(folder / "marked.gguf", context=1 << 12, template=MARKED)
    write_scripted(folder / "caller.gguf", [text.encode() for text in RECITED], context=1 << 12)
    limits = Settings(model="random", max_tokens=256, rate=0, context=1 << 12, max_loaded_models=4)
    with Engine({**models, **find_models(folder)}, limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)


def post(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/chat/completions", json=ASKED | fields)


def choice(client: TestClient, **fields: Any) -> Any:
    answer = post(client, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def chunks(client: TestClient, **fields: Any) -> list[Any]:
    lines = post(client, **fields, stream=True).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]


def allowed(mode: str, *tools: Any) -> Any:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("asked", ["required", NAMED, allowed("required", NAMED)])
def test_a_call_is_forced(client: TestClient, asked: Any, temperature: int) -> None:
    found = choice(client, **TOOLS, tool_choice=asked, parallel_tool_calls=False, temperature=temperature, seed=4)
    assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", None)
    (call,) = found["message"]["tool_calls"]
    assert (call["type"], call["id"][:5]) == ("function", "call_")
    value = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "weather":
        assert len(value["city"]) <= 6
        assert value["unit"] in ("C", "F")
    else:
        assert (asked, value) == ("required", {})


def test_a_mark_that_is_a_control_token_is_one(client: TestClient) -> None:
    forced: Any = TOOLS | {"model": "marked", "tool_choice": NAMED, "parallel_tool_calls": False}
    for bias in (100, -100):  # written as the one token that it is, and letter by letter
        answer = post(client, **forced, logit_bias={str(MARK_TOKEN): bias}).json()
        (found,), usage = answer["choices"], answer["usage"]
        assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", None)
        (call,) = found["message"]["tool_calls"]
        around = len('[{"name": "weather", "arguments": }]') + (1 if bias > 0 else len(MARK))
        assert usage["completion_tokens"] == around + len(call["function"]["arguments"].encode())


def test_a_call_comes_with_what_is_said_before_it(client: TestClient) -> None:
    found = choice(client, model="caller", **TOOLS)
    assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", "Look.")
    (call,) = found["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city":"Rome","unit":"C"}'}


def test_a_stream_tells_a_call_in_pieces(client: TestClient) -> None:
    told = chunks(client, model="caller", **TOOLS)
    assert "".join(chunk["delta"].get("content") or "" for chunk in told) == "Look."
    calls = [call for chunk in told for call in chunk["delta"].get("tool_calls", [])]
    first, *rest = calls
    assert (first["index"], first["type"], first["function"]) == (0, "function", {"name": "weather", "arguments": ""})
    assert first["id"].startswith("call_")
    assert len(rest) > 2
    assert all(call.keys() == {"index", "function"} and call["index"] == 0 for call in rest)
    assert "".join(call["function"]["arguments"] for call in rest) == '{"city":"Rome","unit":"C"}'
    assert [chunk["finish_reason"] for chunk in told if chunk["finish_reason"]] == ["tool_calls"]
    assert told[-1]["finish_reason"] == "tool_calls"


def test_a_stream_says_what_the_whole_answer_says(client: TestClient) -> None:
    forced: Any = TOOLS | {"tool_choice": "required", "temperature": 1, "seed": 11, "max_tokens": 256}
    whole = choice(client, **forced)
    calls: list[list[str]] = []
    for chunk in chunks(client, **forced):
        for call in chunk["delta"].get("tool_calls", []):
            if call["index"] == len(calls):
                calls.append([call["function"]["name"], ""])
            calls[call["index"]][1] += call["function"]["arguments"]
    called = whole["message"]["tool_calls"]
    assert calls == [[call["function"]["name"], call["function"]["arguments"]] for call in called]


def test_who_may_not_call_does_not(client: TestClient) -> None:
    plain = choice(client)
    assert choice(client, **TOOLS, tool_choice="none") == plain
    assert choice(client, tools=[], tool_choice="auto") == plain
    said = choice(client, model="caller", **TOOLS, tool_choice="none")
    assert (said["message"]["content"], said["finish_reason"]) == ("".join(RECITED), "stop")
    assert "tool_calls" not in said["message"]


def test_an_answer_that_is_cut_says_so(client: TestClient) -> None:
    found = choice(client, **TOOLS, tool_choice=NAMED, max_tokens=60)
    assert found["finish_reason"] == "length"
    assert found["message"]["tool_calls"][0]["function"]["name"] == "weather"


def test_functions_are_the_older_name(client: TestClient) -> None:
    older: Any = {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}}
    found = choice(client, **older)
    assert found["finish_reason"] == "function_call"
    assert found["message"]["function_call"]["name"] == "weather"
    deltas = [chunk["delta"]["function_call"] for chunk in chunks(client, **older) if "function_call" in chunk["delta"]]
    assert deltas[0]["name"] == "weather"
    assert "".join(delta["arguments"] for delta in deltas) == found["message"]["function_call"]["arguments"]


def test_an_answer_may_be_of_a_form_or_call(client: TestClient) -> None:
    answer = choice(client, **TOOLS, response_format={"type": "json_schema", "json_schema": {"schema": {"enum": [7]}}})
    called = answer["message"].get("tool_calls")
    assert called or answer["message"]["content"] == "7"


def test_calls_and_results_go_on(client: TestClient) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "grey"}]}
    turns: Any = [HI, {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    spoken: Any = [
        HI,
        {
            "role": "assistant",
            "content": '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
        },
        {"role": "user", "content": "<tool_response>\ngrey\n</tool_response>"},
    ]
    assert choice(client, messages=turns) == choice(client, messages=spoken)
    older: Any = [HI, {"role": "assistant", "content": None, "function_call": call["function"]},
                  {"role": "function", "name": "weather", "content": "grey"}]  # fmt: skip
    assert choice(client, messages=older) == choice(client, messages=spoken)
    tokens = client.post("/v1/tokenize", json={"messages": turns, **TOOLS}).json()["count"]
    assert tokens > client.post("/v1/tokenize", json={"messages": turns}).json()["count"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "a", "parameters": []}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "a", "x": 1}}]}, "tools[0].function.x"),
        ({"tools": [NOW, NOW]}, "tools"),
        ({"tools": [NOW], "functions": [NOW["function"]]}, "functions"),
        ({**TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({**TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice.function.name"),
        ({**TOOLS, "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({**TOOLS, "tool_choice": allowed("auto", {"type": "function", "function": "now"})}, ALLOWED + ".tools"),
        ({**TOOLS, "tool_choice": allowed("auto", "now")}, ALLOWED + ".tools"),
        ({**TOOLS, "tool_choice": allowed("auto", {"name": "x"})}, ALLOWED),
        ({**TOOLS, "tool_choice": allowed("required")}, ALLOWED),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [NOW["function"]], "function_call": {"name": "x"}}, "function_call.name"),
        ({"tools": [WEATHER | {"function": WEATHER["function"] | {"strict": True, "parameters": {"not": {}}}}]},
         "tools[0].function.parameters.not"),
        ({"messages": [{"role": "user", "content": "hi", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": "hi", "tool_call_id": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [HI, {"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages[1].tool_calls[0]"),
        ({"messages": [HI, {"role": "assistant", "tool_calls": [
            {"function": {"name": "x", "arguments": "{"}}]}]}, "messages[1].tool_calls[0].function.arguments"),
        ({"messages": [HI, {"role": "tool", "tool_call_id": "x"}]}, "messages[1].content"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_name(client: TestClient, fields: dict, param: str) -> None:
    answer = post(client, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


class Trip(BaseModel):
    city: str = Field(max_length=6)
    days: list[int] = Field(max_length=2)


def test_openais_client_parses_what_is_called(client: TestClient) -> None:
    api = OpenAI(base_url="http://testserver/v1", api_key="none", max_retries=0, http_client=client)
    asked: Any = ASKED | {"tools": [openai.pydantic_function_tool(Trip)], "tool_choice": "required", "max_tokens": 256,
                          "parallel_tool_calls": False}  # fmt: skip
    (call,) = api.chat.completions.parse(**asked).choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Trip)
    with api.chat.completions.stream(**asked) as stream:
        (done,) = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert done.parsed_arguments == call.function.parsed_arguments
