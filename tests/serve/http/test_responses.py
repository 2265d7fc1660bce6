"""OpenAI's Responses API: what is asked and answered is what the chat is asked and answered."""

import json
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openai import OpenAI
from servers import ROOT, whole_app

from serve.engine import Engine
from serve.http import fields
from serve.http.responses import Reasoning, ResponsesRequest, Text
from serve.settings import Settings

ASKED: Any = {"model": "random", "input": "hi", "temperature": 0, "max_output_tokens": 20}
HI: Any = [{"role": "user", "content": "hi"}]
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Is it?"}]}
CALL: Any = {"type": "function_call", "call_id": "call_1", "name": "now", "arguments": "{}"}
OUTPUT: Any = {"type": "function_call_output", "call_id": "call_1", "output": "late"}
NOW: Any = {"type": "function", "name": "now", "parameters": None, "strict": None}
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "So.", "annotations": []}]}


@pytest.fixture(scope="module")
def client(talker: TestClient) -> OpenAI:
    return OpenAI(base_url=f"{talker.base_url}/v1", api_key="none", http_client=talker, max_retries=0)


def ask(talker: TestClient, **changed: Any) -> Any:
    answer = talker.post("/v1/responses", json=ASKED | changed)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(talker: TestClient, **changed: Any) -> list[Any]:
    """What a stream tells; each event's name is its type, and they are numbered."""
    told = []
    for text in talker.post("/v1/responses", json=ASKED | changed | {"stream": True}).text.split("\n\n")[:-1]:
        name, _, data = text.partition("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    assert [each["sequence_number"] for each in told] == list(range(len(told)))
    return told


def text(response: Any) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def chat(talker: TestClient, messages: Any, **changed: Any) -> str:
    body = {"model": "random", "temperature": 0, "max_tokens": 20, "messages": messages} | changed
    return talker.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def test_openais_client_reads_a_response(client: OpenAI, talker: TestClient) -> None:
    response = client.responses.create(**ASKED, metadata={"of": "me"})
    assert response.output_text == chat(talker, HI)
    assert (response.status, response.object, response.metadata) == ("incomplete", "response", {"of": "me"})
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage
    assert (response.usage.output_tokens, response.usage.total_tokens) == (20, response.usage.input_tokens + 20)
    assert response.id.startswith("resp_")
    assert response.output[0].id.startswith("msg_")  # type: ignore[union-attr]
    whole = client.responses.create(model="nested/accents", input="hi", temperature=0)
    assert (whole.status, whole.incomplete_details) == ("completed", None)


def test_openais_client_reads_a_stream(client: OpenAI) -> None:
    asked: Any = ASKED | {"model": "nested/accents"}
    with client.responses.stream(**asked) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == client.responses.create(**asked).output_text


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        ({"instructions": "brief"}, [{"role": "system", "content": "brief"}, *HI]),
        ({"input": [{"role": "developer", "content": "brief"}, *HI]}, [{"role": "system", "content": "brief"}, *HI]),
        ({"input": [{"type": "message", "role": "user", "status": "completed", "id": "msg_1", "content": [
            {"type": "input_text", "text": "h"}, {"type": "input_text", "text": "i"}]}]},
         [{"role": "user", "content": "h\ni"}]),
        ({"input": [*HI, THOUGHT, SAID, *HI]},
         [*HI, {"role": "assistant", "content": "So.", "reasoning_content": "Is it?"}, *HI]),
        ({"input": [*HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, *HI]},
         [*HI, {"role": "assistant", "content": "No."}, *HI]),
        ({"store": True, "user": "me", "parallel_tool_calls": False, "tools": [], "tool_choice": "auto",
          "truncation": "disabled", "background": False, "reasoning": {"summary": "auto"}, "metadata": {},
          "text": {"format": {"type": "text"}, "verbosity": "medium"}, "stream_options": {"include_obfuscation": True},
          "include": ["reasoning.encrypted_content"]}, HI),
    ],
)  # fmt: skip
def test_it_is_answered_as_the_chat_is(talker: TestClient, asked: dict, messages: Any) -> None:
    assert text(ask(talker, **asked)) == chat(talker, messages)


def test_an_assistants_turn_at_the_end_is_whole(talker: TestClient) -> None:
    messages = [*HI, {"role": "assistant", "content": "So."}]
    assert text(ask(talker, input=[*HI, SAID])) == chat(talker, messages, add_generation_prompt=True)


def test_what_is_thought_is_an_item_before_what_is_said(talker: TestClient) -> None:
    whole = ask(talker, model="thinks")
    told = events(talker, model="thinks")
    for response in (whole, told[-1]["response"]):
        thought, said = response["output"]
        assert (thought["type"], thought["content"]) == ("reasoning", THOUGHT["content"])
        assert (said["type"], said["content"][0]["text"]) == ("message", "So it is.")
        assert response["usage"]["output_tokens_details"]["reasoning_tokens"] in (6, 7)
    cut = ask(talker, model="thinks", max_output_tokens=4)
    assert [item["type"] for item in cut["output"]] == ["reasoning"]
    assert [item["type"] for item in events(talker, model="thinks", max_output_tokens=4)[-1]["response"]["output"]] == [
        "reasoning"
    ]


def test_a_streams_events_are_whole_and_in_order(talker: TestClient) -> None:
    told = events(talker, model="thinks")
    kinds = [each["type"].removeprefix("response.") for each in told]
    assert [kind for kind, after in pairwise([*kinds, ""]) if kind != after] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    places = [each["output_index"] for each in told[2:-1]]
    assert places == sorted(places)
    assert set(places) == {0, 1}
    final = told[-1]["response"]
    for place, item in enumerate(final["output"]):
        own = [each for each in told[2:-1] if each["output_index"] == place]
        assert {each.get("item_id", item["id"]) for each in own} == {item["id"]}
        assert own[-1]["item"] == item
        deltas = "".join(each["delta"] for each in own if each["type"].endswith(".delta"))
        assert deltas == item["content"][0]["text"]
    assert told[0]["response"]["status"] == "in_progress"
    assert told[0]["response"]["id"] == final["id"]
    assert events(talker)[-1]["type"] == "response.incomplete"


def test_an_answer_without_a_word_is_an_empty_message(talker: TestClient) -> None:
    asked = {"model": "switched", "temperature": 0, "max_output_tokens": 1}
    for response in (ask(talker, **asked), events(talker, **asked)[-1]["response"]):
        assert [item["type"] for item in response["output"]] == ["message"]


def test_chances_are_told_where_they_are_asked_for(talker: TestClient) -> None:
    wanted = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    told = events(talker, **wanted)
    whole = ask(talker, **wanted)["output"][0]["content"][0]["logprobs"]
    assert len(whole) == 20
    assert all(len(token["top_logprobs"]) == 2 for token in whole)
    deltas = [each for each in told if each["type"] == "response.output_text.delta"]
    streamed = [token for each in deltas for token in each["logprobs"]]
    assert streamed == whole[: len(streamed)]
    assert next(each for each in told if each["type"] == "response.output_text.done")["logprobs"] == whole
    thinker = ask(talker, **wanted | {"model": "thinks"})["output"][1]["content"][0]["logprobs"]
    assert "".join(token["token"] for token in thinker).strip() == "So it is."


def test_tokens_are_counted_as_they_are_read(talker: TestClient) -> None:
    for asked in ({}, {"instructions": "brief"}):
        counted = talker.post("/v1/responses/input_tokens", json=ASKED | asked).json()
        tokens = ask(talker, **asked)["usage"]["input_tokens"]
        assert counted == {"object": "response.input_tokens", "input_tokens": tokens}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": None}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "tool", "content": "x"}], "instructions": "brief"}, "input[0].role"),
        ({"input": [HI[0] | {"name": "me"}]}, "input[0].name"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [1]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [*HI, {"type": "function_call", "name": "f"}]}, "input[1].call_id"),
        ({"input": [*HI, CALL | {"arguments": "{"}]}, "input[1].arguments"),
        ({"input": [*HI, CALL | {"name": ""}]}, "input[1]"),
        ({"input": [*HI, CALL | {"namespace": "x"}]}, "input[1].namespace"),
        ({"input": [*HI, CALL, OUTPUT | {"output": None}]}, "input[2].output"),
        ({"input": [*HI, CALL, OUTPUT | {"output": [{"type": "input_image"}]}]}, "input[2].output[0]"),
        ({"input": [*HI, CALL, {"type": "function_call_output", "output": "x"}]}, "input[2].call_id"),
        ({"input": [*HI, {"type": "web_search_call", "id": "ws_1"}]}, "input[1]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [NOW, {"type": "computer_use_preview"}]}, "tools[1].type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type"),
        ({"tools": [NOW | {"name": "a b"}]}, "tools[0].name"),
        ({"tools": [NOW | {"parameters": {"not": {}}, "strict": True}]}, "tools[0].parameters.not"),
        ({"tools": [NOW | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [NOW], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [*HI, THOUGHT]}, "input[1]"),
        ({"input": [THOUGHT | {"encrypted_content": "x"}, SAID, *HI]}, "input[0].encrypted_content"),
        ({"input": "x" * 8001, "instructions": "brief"}, "input.content"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"colour": "red"}}, "text.colour"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
        ({"truncation": "auto"}, "truncation"),
        ({"messages": HI}, "messages"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_offered_is_named(talker: TestClient, asked: dict, param: str, stream: bool) -> None:
    answer = talker.post("/v1/responses", json=ASKED | asked | {"stream": stream})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text


@pytest.mark.parametrize("name", sorted(fields.RESPONSES_REFUSED))
def test_each_field_that_would_change_the_answer_is_refused(talker: TestClient, name: str) -> None:
    error = talker.post("/v1/responses", json=ASKED | {name: {"of": 1}}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)


@pytest.mark.parametrize("name", sorted(fields.RESPONSES_HARMLESS))
def test_each_field_that_changes_nothing_is_taken(talker: TestClient, name: str) -> None:
    assert text(ask(talker, **{name: {"of": 1}})) == text(ask(talker))


def test_a_stream_that_fails_says_so(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(3))

    def fail(*_: Any) -> int:
        next(steps)
        return ord("x")

    monkeypatch.setattr("llama.model.LlamaModel.draw", fail)
    *_, error, failed = events(TestClient(whole_app(engine, settings)))
    assert (error["type"], error["message"]) == ("error", "The server failed to answer.")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": "The server failed to answer."}


def test_the_documents_show_every_field() -> None:
    shown = (ROOT / "docs/serving.md").read_text()
    named = {name for model in (ResponsesRequest, Reasoning, Text) for name in model.model_fields}
    named |= fields.RESPONSES_HARMLESS | fields.RESPONSES_REFUSED.keys() | fields.REASONING_REFUSED.keys()
    named |= fields.REASONING_ITEM_REFUSED.keys()
    assert not [name for name in sorted(named) if f"`{name}`" not in shown]
