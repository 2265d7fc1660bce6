"""Tools in a request, calls in its answers, and conversations that have both, as programs write them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from pydantic import BaseModel, Field
from servers import whole_app
from tiny_gguf import CHAT_TEMPLATE, write_random, write_scripted

from common.errors import UserError
from llama.source import llama_cpp_tree
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
ANTHROPICS: Any = [
    {"type": "custom", "name": "weather", "description": "d", "input_schema": PARAMETERS, "cache_control": {}},
    {"name": "now", "input_schema": None},
]
FLAT: Any = [{"type": "function", **tool["function"]} for tool in (WEATHER, NOW)]
RESPONDED: Any = {"model": "roomy", "input": [HI], "temperature": 0, "max_output_tokens": 200}
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
TAGGED_RECITED = ["Look.", "\n<tool_call>\n<function=", "weather>\n<para", "meter=city>\n", "Ro", "me\n</parameter>\n",
                  "<parameter=days>\n2", "\n</parameter>\n</function>", "\n</tool_call>"]  # fmt: skip
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
# And one that writes their arguments in tags, as Qwen3 Coder's does.
TAGGED = MARKED.replace(
    "{{- '" + MARK + '[{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson + '}]' }}",
    "{{- '\n<tool_call>\n<function=' + call.function.name + '>\n' }}"
    "{%- for name, value in call.function.arguments.items() %}"
    "{{- '<parameter=' + name + '>\n' + value | string + '\n</parameter>\n' }}{%- endfor %}"
    "{{- '</function>\n</tool_call>' }}",
)


# What models of true families write, in tokens that all differ, after the newline with which the prompt ends; the
# second of them begins a call.
FAMILIES: dict[str, list[str]] = {
    "google-gemma-4-31B-it": ["Look.", "<|tool_call>", "call:weather{", 'city:<|"|>Ro', 'me<|"|>', ",days:2", "}",
                              "<tool_call|>", "<|tool_response>"],
    "LFM2-8B-A1B": ["Look.", "<|tool_call_start|>", "[weather(", "city='Ro", "me", "', days=2", ")]",
                    "<|tool_call_end|>"],
    "LFM2.5-8B-A1B": ["Look.", "<|tool_call_start|>", "[weather(", 'city="Ro', "me", '", days=2)', "]",
                      "<|tool_call_end|>"],
    "Kimi-K3": ["<|close|>", "<|open|>", "<|sep|>"],  # whose prompt ends otherwise
}  # fmt: skip


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Models of nothing but what they write, with the templates of true ones."""
    try:
        templates = llama_cpp_tree() / "models/templates"
    except UserError as error:
        pytest.skip(f"no package index gives llama.cpp's sources: {error}")
    folder = tmp_path_factory.mktemp("families")
    for name, script in FAMILIES.items():
        words, template = [text.encode() for text in script], (templates / f"{name}.jinja").read_text(encoding="utf-8")
        marks = [word for word in words if b"|>" in word and word.startswith(b"<") and word.endswith(b">")]
        write_scripted(folder / f"{name}.gguf", words, context=1 << 12, template=template, marks=marks)
    limits = Settings(max_tokens=512, rate=0, context=1 << 12, max_loaded_models=4)
    with Engine(find_models(folder), limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("callers")
    write_random(folder / "roomy.gguf", context=1 << 12)
    write_random(folder / "marked.gguf", context=1 << 12, template=MARKED)
    write_random(folder / "tagged.gguf", context=1 << 12, template=TAGGED)
    tagger = [text.encode() for text in TAGGED_RECITED]
    write_scripted(folder / "tagger.gguf", tagger, context=1 << 12, template=TAGGED)
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


def test_a_call_in_tags_is_forced(client: TestClient) -> None:
    properties = {"unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}
    parameters = {"type": "object", "properties": properties, "required": ["unit", "days"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    forced: Any = {"model": "tagged", "tools": tools, "tool_choice": NAMED, "seed": 4}
    for temperature in (0, 1):
        found = choice(client, **forced, temperature=temperature)
        assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", None)
        (call,) = found["message"]["tool_calls"]
        value = json.loads(call["function"]["arguments"])
        assert (value["unit"] in ("C", "F"), value["days"] in range(1, 10), len(value)) == (True, True, 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_true_family_s_call_is_forced(families: TestClient, name: str) -> None:
    properties = {"unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
                  "sure": {"type": "boolean"}}  # fmt: skip
    parameters = {"type": "object", "properties": properties, "required": ["unit", "days"]}
    tools = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters}}]
    forced: Any = {"model": name, "tools": tools, "tool_choice": NAMED, "seed": 4, "parallel_tool_calls": False}
    forced |= {"max_tokens": 512, "logit_bias": {"262": 100}}  # its mark, lest it think first, for ever
    forced |= {"chat_template_kwargs": {"thinking": False}} if name == "Kimi-K3" else {}
    for temperature in (0, 1):
        found = choice(families, **forced, temperature=temperature)
        assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", None)
        (call,) = found["message"]["tool_calls"]
        value = json.loads(call["function"]["arguments"])
        assert (value["unit"] in ("C", "F"), value["days"] in range(1, 10)) == (True, True)
        assert type(value.get("sure", True)) is bool


@pytest.mark.parametrize("name", list(FAMILIES)[:3])
def test_a_true_family_s_call_is_told_as_it_comes(families: TestClient, name: str) -> None:
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties}
    tools = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": parameters}}]
    asked: Any = {"model": name, "tools": tools}
    if "gemma" in name:
        asked["chat_template_kwargs"] = {"enable_thinking": True}
    found = choice(families, **asked)
    assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", "Look.")
    (call,) = found["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Rome", "days": 2}'}
    deltas = [chunk["delta"] for chunk in chunks(families, **asked)]
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if delta.get("tool_calls")]
    assert "".join(pieces) == '{"city": "Rome", "days": 2}'
    assert len(pieces) > 3
    result = {"role": "tool", "tool_call_id": call["id"], "content": "grey"}
    turns = [HI, {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    ids = families.post("/v1/tokenize", json={"model": name, "messages": turns, "tools": tools}).json()["tokens"]
    text = families.post("/detokenize", json={"model": name, "tokens": ids}).json()["content"]
    assert re.search(r"(?s)weather[({]city.{1,6}Rome.*days.2.*grey", text)


def test_a_call_in_tags_comes_with_arguments_of_the_schema_s_types(client: TestClient) -> None:
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties}
    asked: Any = {
        "model": "tagger",
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": parameters}}],
    }
    found = choice(client, **asked)
    assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", "Look.")
    assert found["message"]["tool_calls"][0]["function"] == {
        "name": "weather",
        "arguments": '{"city": "Rome", "days": 2}',
    }
    deltas = [chunk["delta"] for chunk in chunks(client, **asked)]
    pieces = [delta["tool_calls"][0]["function"]["arguments"] for delta in deltas if delta.get("tool_calls")]
    assert "".join(pieces) == '{"city": "Rome", "days": 2}'
    assert len(pieces) > 3  # they come as they are written
    tools = [{"name": "weather", "input_schema": parameters}]
    body = {"model": "tagger", "max_tokens": 200, "temperature": 0, "messages": [HI], "tools": tools}
    said, called = client.post("/v1/messages", json=body).json()["content"]
    assert (said["text"], called["name"], called["input"]) == ("Look.", "weather", {"city": "Rome", "days": 2})


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


def other(client: TestClient, way: str, **fields: Any) -> Any:
    answer = client.post(f"/v1/{way}", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def told(client: TestClient, way: str, **fields: Any) -> list[Any]:
    """What a stream of events with names tells."""
    frames = client.post(f"/v1/{way}", json=fields | {"stream": True}).text.split("\n\n")[:-1]
    return [json.loads(frame.partition("\ndata: ")[2]) for frame in frames]


def test_anthropics_messages_call(client: TestClient) -> None:
    asked = ASKED | {"model": "caller", "tools": ANTHROPICS}
    whole, stream = other(client, "messages", **asked), told(client, "messages", **asked)
    said, call = whole["content"]
    assert (whole["stop_reason"], said) == ("tool_use", {"type": "text", "text": "Look."})
    assert call.pop("id").startswith("call_")
    assert call == {"type": "tool_use", "name": "weather", "input": {"city": "Rome", "unit": "C"}}
    begun = [each["content_block"] for each in stream if each["type"] == "content_block_start"]
    assert begun[1].pop("id").startswith("call_")
    assert begun == [{"type": "text", "text": ""}, call | {"input": {}}]
    deltas = [each["delta"] for each in stream if each["type"] == "content_block_delta" and each["index"] == 1]
    assert {delta["type"] for delta in deltas} == {"input_json_delta"}
    assert len(deltas) > 2
    assert json.loads("".join(delta["partial_json"] for delta in deltas)) == call["input"]
    assert [each["index"] for each in stream if each["type"] == "content_block_stop"] == [0, 1]
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("asked", "chats"),
    [
        ({"type": "tool", "name": "weather"}, {"tool_choice": NAMED}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
    ],
)
def test_anthropics_messages_are_forced_to_call(client: TestClient, asked: Any, chats: Any) -> None:
    blocks = other(client, "messages", **ASKED | {"tools": ANTHROPICS, "tool_choice": asked})["content"]
    calls = [call["function"] for call in choice(client, **TOOLS, **chats)["message"]["tool_calls"]]
    assert [block["name"] for block in blocks] == [call["name"] for call in calls]
    finished = calls if len(calls) == 1 else calls[:-1]
    assert [b["input"] for b in blocks][: len(finished)] == [json.loads(call["arguments"]) for call in finished]


def test_anthropics_messages_that_are_cut_or_do_not_call(client: TestClient) -> None:
    forced = {"tools": ANTHROPICS, "tool_choice": {"type": "tool", "name": "weather"}}
    cut = other(client, "messages", **ASKED | forced | {"max_tokens": 60})
    assert (cut["stop_reason"], cut["content"][0]["name"], cut["content"][0]["input"]) == ("max_tokens", "weather", {})
    quiet = ASKED | forced | {"model": "caller", "tool_choice": {"type": "none"}}
    said = other(client, "messages", **quiet)
    assert (said["content"], said["stop_reason"]) == ([{"type": "text", "text": "".join(RECITED)}], "end_turn")


def test_anthropics_calls_and_results_go_on(client: TestClient) -> None:
    use = {"type": "tool_use", "id": "a", "name": "now", "input": {"city": "Rome"}, "caller": {"type": "direct"}}
    result: Any = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "grey"}]}
    late: Any = {"type": "tool_result", "tool_use_id": "b", "is_error": True}
    turns: Any = [
        HI,
        {"role": "assistant", "content": [{"type": "text", "text": "Look."}, use, use | {"id": "b", "input": {}}]},
        {"role": "user", "content": [result, late, {"type": "text", "text": "So?"}]},
    ]
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": '{"city": "Rome"}'}}
    empty = {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    chats: Any = [
        HI,
        {"role": "assistant", "content": "Look.", "tool_calls": [call, empty]},
        {"role": "tool", "tool_call_id": "a", "content": "grey"},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": "So?"},
    ]
    answer = other(client, "messages", **ASKED | {"messages": turns, "tools": ANTHROPICS})
    assert answer["content"][0]["text"] == choice(client, messages=chats, **TOOLS)["message"]["content"]
    for tools in ([], ANTHROPICS):
        asked = ASKED | {"messages": turns, "tools": tools}
        usage = other(client, "messages", **asked | {"max_tokens": 1})["usage"]
        counted = other(client, "messages/count_tokens", **asked)["input_tokens"]
        assert counted == usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert counted > other(client, "messages/count_tokens", **ASKED | {"messages": turns})["input_tokens"]


def test_responses_call(client: TestClient) -> None:
    asked = RESPONDED | {"model": "caller", "tools": FLAT}
    whole, stream = other(client, "responses", **asked), told(client, "responses", **asked)
    final = stream[-1]["response"]
    for response in (whole, final):
        said, call = response["output"]
        assert (response["status"], said["content"][0]["text"]) == ("completed", "Look.")
        assert (call["id"][:3], call["call_id"][:5]) == ("fc_", "call_")
        assert {key: call[key] for key in call if "id" not in key} == {
            "type": "function_call", "status": "completed",
            "name": "weather", "arguments": '{"city":"Rome","unit":"C"}',
        }  # fmt: skip
        assert (response["tools"], response["tool_choice"], response["parallel_tool_calls"]) == (FLAT, "auto", True)
    own = [each for each in stream[2:-1] if each["output_index"] == 1]
    added, *deltas, done, ended = own
    assert added["item"] == call | {"status": "in_progress", "arguments": ""}
    assert {each["type"] for each in deltas} == {"response.function_call_arguments.delta"}
    assert len(deltas) > 2
    assert {each["item_id"] for each in (*deltas, done)} == {call["id"]}
    assert "".join(each["delta"] for each in deltas) == done["arguments"] == call["arguments"]
    assert (done["type"], done["name"]) == ("response.function_call_arguments.done", "weather")
    assert (ended["type"], ended["item"]) == ("response.output_item.done", call)


@pytest.mark.parametrize(
    ("asked", "chats"),
    [
        ({"tool_choice": {"type": "function", "name": "weather"}}, {"tool_choice": NAMED}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "now"}]},
          "parallel_tool_calls": False},
         {"tool_choice": {"type": "function", "function": {"name": "now"}}}),
    ],
)  # fmt: skip
def test_responses_are_forced_to_call(client: TestClient, asked: Any, chats: Any) -> None:
    calls = [call["function"] for call in choice(client, **TOOLS, **chats)["message"]["tool_calls"]]
    fields = RESPONDED | {"tools": FLAT} | asked
    for response in (other(client, "responses", **fields), told(client, "responses", **fields)[-1]["response"]):
        assert [{key: item[key] for key in ("name", "arguments")} for item in response["output"]] == calls
        assert response["tool_choice"] == asked["tool_choice"]


def test_responses_that_are_cut_or_do_not_call(client: TestClient) -> None:
    forced = {"tools": FLAT, "tool_choice": {"type": "function", "name": "weather"}, "max_output_tokens": 60}
    for response in (
        other(client, "responses", **RESPONDED | forced),
        told(client, "responses", **RESPONDED | forced)[-1]["response"],
    ):
        (call,) = response["output"]
        assert (response["status"], call["status"], call["name"]) == ("incomplete", "incomplete", "weather")
    quiet = other(client, "responses", **RESPONDED | {"model": "caller", "tools": FLAT, "tool_choice": "none"})
    assert [item["type"] for item in quiet["output"]] == ["message"]


def test_responses_calls_and_results_go_on(client: TestClient) -> None:
    call = {
        "type": "function_call",
        "id": "fc_1",
        "status": "completed",
        "name": "now",
        "arguments": '{"city": "Rome"}',
    }
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Is it?"}]}
    result = {"type": "function_call_output", "call_id": "a", "output": "grey"}
    parts = {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "late"}]}
    items: Any = [HI, thought, call | {"call_id": "a"}, call | {"call_id": "b"}, result, parts, HI]
    calls = [
        {"id": number, "type": "function", "function": {"name": "now", "arguments": '{"city": "Rome"}'}}
        for number in ("a", "b")
    ]
    chats: Any = [
        HI,
        {"role": "assistant", "content": None, "reasoning_content": "Is it?", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": "grey"},
        {"role": "tool", "tool_call_id": "b", "content": "late"},
        HI,
    ]
    answer = other(client, "responses", **RESPONDED | {"input": items, "tools": FLAT})
    assert answer["output"][0]["content"][0]["text"] == choice(client, messages=chats, **TOOLS)["message"]["content"]
    counted = other(client, "responses/input_tokens", **RESPONDED | {"input": items, "tools": FLAT})["input_tokens"]
    assert counted == answer["usage"]["input_tokens"]
    assert counted > other(client, "responses/input_tokens", **RESPONDED | {"input": items})["input_tokens"]


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


def test_openais_client_reads_what_a_response_calls(client: TestClient) -> None:
    api = OpenAI(base_url="http://testserver/v1", api_key="none", max_retries=0, http_client=client)
    asked: Any = RESPONDED | {"tools": [openai.pydantic_function_tool(Trip)["function"] | {"type": "function"}]}
    asked |= {"tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 256}
    (call,) = api.responses.parse(**asked).output
    assert call.type == "function_call"
    assert Trip.model_validate(call.parsed_arguments) == Trip.model_validate_json(call.arguments)
    with api.responses.stream(**asked) as stream:
        (done,) = [event for event in stream if event.type == "response.function_call_arguments.done"]
        assert stream.get_final_response().output[0].parsed_arguments == call.parsed_arguments  # type: ignore[union-attr]
    assert done.arguments == call.arguments
    gone_on: Any = [HI, call, {"type": "function_call_output", "call_id": call.call_id, "output": "y"}]
    assert api.responses.create(**asked | {"input": gone_on}).output[0].type == "function_call"
