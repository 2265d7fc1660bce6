"""What clients send that are not installed here, as their source has it or as it was seen."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from gguf import PoolingType
from servers import whole_app
from tiny_gguf import write_random

from serve.engine import Engine
from serve.models.registry import find_models
from serve.settings import Settings

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Say how the weather is.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where.", "enum": ["Rome"]},
                "days": {"type": "integer", "description": "ahead.", "nullable": True},
            },
            "required": ["city"],
        },
    },
}
CALL: Any = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def chat(**fields: Any) -> Any:
    return {"model": "roomy", "messages": [{"role": "user", "content": "hi"}]} | fields


# https://github.com/open-webui/open-webui: routers/openai.py, routers/tasks.py, utils/payload.py and utils/misc.py
OPEN_WEBUI = {
    "a chat": chat(stream=True, stream_options={"include_usage": True}, max_tokens=5),
    "a chat with all that its controls set": chat(
        stream=True, stream_options={"include_usage": True}, temperature=0.8, top_p=0.9, top_k=40, min_p=0.0,
        max_tokens=5, frequency_penalty=0.0, presence_penalty=0.0, repeat_penalty=1.1, seed=42,
        stop=["\n\n"], logit_bias={"5": 1}, response_format={"type": "text"},
    ),
    "a title": chat(stream=False, max_completion_tokens=5),
    "tools": chat(
        stream=True,
        max_tokens=5,
        tools=[WEATHER],
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": parts("hi")},
            {"role": "assistant", "content": "", "tool_calls": [CALL | {"index": 0}], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "call_1", "content": "grey"},
        ],
    ),
}  # fmt: skip
# smolagents 1.26: ToolCallingAgent and CodeAgent, whose later steps have calls and results as words (test_agents.py).
STEPS = [
    {"role": "system", "content": parts("You are an expert.")},
    {"role": "user", "content": parts("New task:\nhi")},
    {"role": "assistant", "content": parts("Calling tools:\n[{'id': 'call_1'}]")},
    {"role": "user", "content": parts("Observation:\ngrey")},
]
SMOLAGENTS = {
    "a call": chat(
        max_tokens=5, stop=["Observation:", "Calling tools:"], temperature=0, tool_choice="required", tools=[WEATHER],
        messages=STEPS,
    ),
    "code": chat(
        stream=True, stream_options={"include_usage": True}, max_tokens=5, stop=["Observation:", "</code>"],
        messages=STEPS,
    ),
    "code of a form": chat(
        max_tokens=5,
        messages=STEPS,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "ThoughtAndCodeAnswer",
                "strict": True,
                "schema": {
                    "title": "ThoughtAndCodeAnswer",
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["thought", "code"],
                    "properties": {
                        "thought": {"type": "string", "title": "Thought", "description": "A free form text."},
                        "code": {"type": "string", "title": "Code", "description": "Valid Python."},
                    },
                },
            },
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("clients")
    write_random(folder / "roomy.gguf", context=1 << 12)
    write_random(folder / "vectors.gguf", template=None, pooling=PoolingType.MEAN)
    limits = Settings(max_tokens=64, max_loaded_models=2, rate=0, context=1 << 12)
    with Engine(find_models(folder), limits) as engine:
        yield TestClient(whole_app(engine, limits), raise_server_exceptions=False)


@pytest.mark.parametrize("body", [*OPEN_WEBUI.values(), *SMOLAGENTS.values()], ids=[*OPEN_WEBUI, *SMOLAGENTS])
def test_a_chat_is_answered(client: TestClient, body: Any) -> None:
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if body.get("stream"):
        told = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n")[:-2]]
        assert told[0]["choices"][0]["delta"]["role"] == "assistant"
        usage = [chunk["usage"] for chunk in told if not chunk["choices"]]
        assert [0 < each["completion_tokens"] <= 5 for each in usage] == [True] * ("stream_options" in body)
    else:
        assert 0 < answer.json()["usage"]["completion_tokens"] <= 5
        called = answer.json()["choices"][0]["message"].get("tool_calls", [])
        assert {call["function"]["name"] for call in called} <= {"weather"}


def test_open_webui_lists_models_and_embeds(client: TestClient) -> None:
    listed = client.get("/v1/models", headers={"Authorization": "Bearer none"}).json()
    assert [model["id"] for model in listed["data"]] == ["roomy", "vectors"]
    vectors = client.post("/v1/embeddings", json={"input": ["one", "two"], "model": "vectors"}).json()["data"]
    assert [each["index"] for each in vectors] == [0, 1]
