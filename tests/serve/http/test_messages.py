"""Anthropic's Messages API: what is asked and answered is what the chat is asked and answers."""

import dataclasses
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient
from servers import ROOT, whole_app

from serve.engine import Engine
from serve.http import fields
from serve.http.messages import MessagesRequest, OutputConfig
from serve.settings import Settings

HI: Any = [{"role": "user", "content": "hi"}]
ASKED: Any = {"model": "random", "messages": HI, "temperature": 0, "max_tokens": 20}
SAID = {"type": "text", "text": "So it is."}
BOUNDS = ("content_block_start", "content_block_stop")
THOUGHT = {"type": "thinking", "thinking": "Is it?", "signature": ""}
WEATHER: Any = {
    "name": "weather", "description": "d",
    "input_schema": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]},
}  # fmt: skip
CALLED: Any = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}}
RESULT: Any = {"type": "tool_result", "tool_use_id": "call_1", "content": "grey"}


def ask(talker: TestClient, **changed: Any) -> Any:
    answer = talker.post("/v1/messages", json=ASKED | changed)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(talker: TestClient, **changed: Any) -> list[Any]:
    """What a stream tells; each event's name is its type."""
    answer = talker.post("/v1/messages", json=ASKED | changed | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = []
    for text in answer.text.split("\n\n")[:-1]:
        name, _, data = text.partition("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    return told


def chat(talker: TestClient, messages: Any, **changed: Any) -> str:
    body = ASKED | {"messages": messages} | changed
    return talker.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def refused(talker: TestClient, path: str = "messages", **changed: Any) -> str:
    answer = talker.post(f"/v1/{path}", json=ASKED | changed)
    assert answer.status_code == 400, answer.text
    assert (answer.json()["type"], answer.json()["error"]["type"]) == ("error", "invalid_request_error")
    return answer.json()["error"]["message"]


def prompt(usage: Any) -> int:
    return usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_a_message_has_anthropics_shape(talker: TestClient) -> None:
    first, message = ask(talker), ask(talker)
    assert message.pop("id").startswith("msg_")
    (block,) = message.pop("content")
    assert block == {"type": "text", "text": chat(talker, HI)}
    usage = message.pop("usage")
    assert message == {
        "type": "message", "role": "assistant", "model": "random", "stop_reason": "max_tokens", "stop_sequence": None,
    }  # fmt: skip
    assert usage["output_tokens"] == 20
    assert usage["cache_read_input_tokens"] > 0
    assert prompt(usage) == prompt(first["usage"])


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        ({"system": "brief"}, [{"role": "system", "content": "brief"}, *HI]),
        ({"system": [{"type": "text", "text": "be"}, {"type": "text", "text": "brief", "cache_control": {}}]},
         [{"role": "system", "content": "be\nbrief"}, *HI]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]},
         [{"role": "user", "content": "h\ni"}]),
        ({"messages": [*HI, *HI]}, [{"role": "user", "content": "hi\nhi"}]),
        ({"messages": [*HI, {"role": "assistant", "content": [THOUGHT, SAID]}, *HI]},
         [*HI, {"role": "assistant", "content": "So it is.", "reasoning_content": "Is it?"}, *HI]),
        ({"messages": [*HI, {"role": "assistant", "content": [THOUGHT]}, {"role": "assistant", "content": "So."}, *HI]},
         [*HI, {"role": "assistant", "content": "So.", "reasoning_content": "Is it?"}, *HI]),
        ({"messages": [*HI, {"role": "assistant", "content": "so"}]}, [*HI, {"role": "assistant", "content": "so"}]),
        ({"top_k": 1, "temperature": 1}, HI),
        ({"metadata": {"user_id": "me"}, "service_tier": "auto", "tools": [], "tool_choice": {"type": "auto"},
          "thinking": {"type": "disabled"}, "stop_sequences": []}, HI),
    ],
)  # fmt: skip
def test_it_is_answered_as_the_chat_is(talker: TestClient, asked: dict, messages: Any) -> None:
    assert ask(talker, **asked)["content"][0]["text"] == chat(talker, messages)


def test_what_is_thought_is_a_block_before_what_is_said(talker: TestClient) -> None:
    whole = ask(talker, model="thinks")
    assert (whole["content"], whole["stop_reason"]) == ([THOUGHT, SAID], "end_turn")
    told = events(talker, model="thinks")
    assert [each["content_block"]["type"] for each in told if "content_block" in each] == ["thinking", "text"]
    assert [(each["type"][14:], each["index"]) for each in told if each["type"] in BOUNDS] == [
        ("start", 0), ("stop", 0), ("start", 1), ("stop", 1),
    ]  # fmt: skip
    deltas = [each["delta"] for each in told if each["type"] == "content_block_delta"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "Is it?"
    assert "".join(delta.get("text", "") for delta in deltas) == "So it is."


def test_thinking_is_switched(talker: TestClient) -> None:
    def said(kind: str) -> str:
        return ask(talker, model="switched", thinking={"type": kind})["content"][-1]["text"]

    assert said("disabled") == chat(talker, HI, model="switched", enable_thinking=False)
    assert said("disabled") != said("enabled") == said("adaptive") == chat(talker, HI, model="switched")
    assert refused(talker, thinking={"type": "enabled"}).startswith("thinking: the model's chat template has no switch")


def test_a_stream_begins_and_ends_as_anthropics_do(talker: TestClient) -> None:
    whole, told = ask(talker), events(talker)
    kinds = [each["type"] for each in told]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    start = told[0]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 0)
    assert prompt(start["usage"]) == prompt(whole["usage"])
    text = "".join(each["delta"]["text"] for each in told[2:-3])
    assert text == whole["content"][0]["text"]
    assert told[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert told[-2]["usage"] == {"output_tokens": 20}


def test_the_text_that_ends_an_answer_is_told(talker: TestClient) -> None:
    asked = {"model": "endless", "stop_sequences": ["nothing", "thanks for"]}
    whole = ask(talker, **asked)
    assert whole["content"] == [{"type": "text", "text": " So long, and "}]
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", "thanks for")
    assert events(talker, **asked)[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "thanks for"}


def test_an_answer_without_a_word_has_an_empty_block(talker: TestClient) -> None:
    asked = {"model": "endless", "stop_sequences": [" So"]}
    assert ask(talker, **asked)["content"] == [{"type": "text", "text": ""}]
    assert [each["type"] for each in events(talker, **asked)] == [
        "message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


def test_tokens_are_counted_as_they_are_read(talker: TestClient) -> None:
    for asked in ({}, {"system": "brief"}, {"messages": [*HI, {"role": "assistant", "content": "so"}]}):
        bare = {"model": "random", "messages": HI} | asked
        counted = talker.post("/v1/messages/count_tokens", json=bare)
        assert counted.json() == talker.post("/v1/messages/count_tokens", json=ASKED | asked).json()
        usage = ask(talker, **asked)["usage"]
        assert counted.json() == {"input_tokens": prompt(usage)}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"max_tokens": None}, "max_tokens: "),
        ({"max_tokens": 0}, "max tokens must be a whole number from 1"),
        ({"messages": []}, "There is no message to answer"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role: "),
        ({"messages": [{"role": "user"}]}, "messages[0].content: "),
        ({"messages": [HI[0] | {"name": "me"}]}, "messages[0].name is not known"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
         "messages[0].content[0]: 'image' is not supported, only text, tool_result."),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
         "messages[0].content[0].tool_use_id: a text is required."),
        ({"messages": [{"role": "user", "content": [RESULT | {"content": [{"type": "image", "source": {}}]}]}]},
         "messages[0].content[0].content[0]: 'image' is not supported, only text."),
        ({"messages": [{"role": "user", "content": [RESULT | {"toolset_name": "x"}]}]},
         "messages[0].content[0].toolset_name is not supported"),
        ({"messages": [{"role": "user", "content": [CALLED]}]}, "messages[0].content[0]: 'tool_use' is not supported"),
        ({"messages": [*HI, {"role": "assistant", "content": [SAID, CALLED | {"input": "{}"}]}]},
         "messages[1].content[1].input: an object is required."),
        ({"messages": [*HI, {"role": "assistant", "content": [SAID, CALLED | {"name": ""}]}]},
         "messages[1].content[1] needs a name"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text: a text is"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "colour": 1}]}]},
         "messages[0].content[0].colour is not known"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "citations": {"enabled": True}}]}]},
         "messages[0].content[0].citations is not supported"),
        ({"system": [{"type": "document"}]}, "system[0]: 'document'"),
        ({"system": 5}, "system: Input should be a valid string or a valid list."),
        ({"system": [5]}, "system[0]: Input should be a valid dictionary."),
        ({"messages": [{"role": "user", "content": None}]},
         "messages[0].content: Input should be a valid string or a valid list."),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
         "tools[0].type: 'web_search_20250305' is not supported, only custom."),
        ({"tools": [WEATHER | {"type": "computer_20251124"}]}, "tools[0].type: 'computer_20251124' is not supported"),
        ({"tools": [WEATHER | {"defer_loading": True}]}, "tools[0].defer_loading is not supported"),
        ({"tools": [WEATHER, WEATHER | {"name": "a b"}]}, "tools[1].name must be 1 to 64 letters"),
        ({"tools": [WEATHER | {"input_schema": []}]}, "tools[0].input_schema must be a JSON schema"),
        ({"tools": [WEATHER | {"input_schema": {"not": {}}, "strict": True}]}, "tools[0].input_schema.not"),
        ({"tool_choice": {"type": "any"}}, "tool_choice requires a call, and there are no tools."),
        ({"tools": [WEATHER], "tool_choice": {"type": "any", "name": "weather"}}, "tool_choice.name: any names no"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name: there is no tool"),
        ({"tools": [WEATHER], "tool_choice": {"type": "best"}}, "tool_choice.type: "),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens is not supported"),
        ({"thinking": {"type": "deep"}}, "thinking.type: "),
        ({"output_config": {"effort": "high"}}, "output_config.effort: the model's chat template knows no 'high'"),
        ({"output_config": {"colour": "red"}}, "output_config.colour is not known"),
        ({"n": 2}, "n is not known"),
        ({"temperature": 3}, "temperature must be a number"),
        ({"stop_sequences": ["x"] * 33}, "At most 32 texts"),
        ({"system": "a", "messages": [{"role": "user", "content": "x" * 8001}]}, "The text has 8,001 characters"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_offered_is_named(talker: TestClient, asked: dict, text: str, stream: bool) -> None:
    assert refused(talker, **asked, stream=stream).startswith(text)


@pytest.mark.parametrize("name", sorted(fields.MESSAGES_REFUSED))
def test_each_field_that_would_change_the_answer_is_refused(talker: TestClient, name: str) -> None:
    for path in ("messages", "messages/count_tokens"):
        assert refused(talker, path, **{name: {"of": 1}}) == f"{name} is not supported: leave it out."


@pytest.mark.parametrize("name", sorted(fields.MESSAGES_HARMLESS))
def test_each_field_that_changes_nothing_is_taken(talker: TestClient, name: str) -> None:
    assert ask(talker, **{name: {"of": 1}})["content"] == ask(talker)["content"]


def test_a_client_is_told_to_bring_the_whole_conversation_with_each_turn(talker: TestClient) -> None:
    for thread in ({"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}):
        error = talker.post("/v1/messages", json=ASKED | {"thread": thread}).json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    assert "details" not in talker.post("/v1/messages", json=ASKED | {"container": "x"}).json()["error"]


def test_errors_have_anthropics_types(engine: Engine, settings: Settings) -> None:
    limits = dataclasses.replace(settings, api_key="secret", rate=4)
    client = TestClient(whole_app(engine, limits))

    def asked(body: Any = ASKED, key: str = "secret", method: str = "POST") -> tuple[int, str]:
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
        answer = client.request(method, "/v1/messages", json=body, headers=headers)
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["type"]

    assert asked(ASKED | {"max_tokens": 1}) == (200, "")
    assert asked(key="wrong") == (401, "authentication_error")
    assert asked(ASKED | {"model": "claude"}) == (404, "not_found_error")
    assert asked(method="GET") == (405, "invalid_request_error")
    assert asked() == (429, "rate_limit_error")
    engine.drain()
    assert TestClient(whole_app(engine, settings)).post("/v1/messages", json=ASKED).json() == {
        "type": "error", "error": {"type": "overloaded_error", "message": "The server is stopping."},
    }  # fmt: skip


def test_a_stream_that_fails_ends_with_the_error(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(3))

    def fail(*_: Any) -> int:
        next(steps)
        return ord("x")

    monkeypatch.setattr("llama.model.LlamaModel.draw", fail)
    told = events(TestClient(whole_app(engine, settings)))
    assert told[-1] == {"type": "error", "error": {"type": "api_error", "message": "The server failed to answer."}}


def test_the_documents_show_every_field() -> None:
    shown = (ROOT / "docs/serving.md").read_text()
    models = (MessagesRequest, OutputConfig)
    named = {name for model in models for name in model.model_fields} | fields.MESSAGES_HARMLESS
    named |= fields.MESSAGES_REFUSED.keys() | fields.THINKING_REFUSED.keys() | fields.BLOCK_REFUSED.keys()
    named |= fields.TOOL_HARMLESS | fields.TOOL_REFUSED.keys() | fields.CALL_REFUSED.keys() | {"is_error"}
    assert not [name for name in sorted(named) if f"`{name}`" not in shown]
