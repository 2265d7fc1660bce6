"""smolagents' agents as they are, which ask this server's models: where it is installed.

pip install --target /tmp/agents smolagents && PYTHONPATH=/tmp/agents pytest tests/serve/http/test_agents.py
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from servers import whole_app
from tiny_gguf import write_random, write_scripted

from serve.engine import Engine
from serve.models.registry import find_models
from serve.settings import Settings

agents: Any = pytest.importorskip("smolagents", reason="smolagents is not installed")

CALLED = ['<tool_call>\n{"name": "', 'weather", "arguments": ', '{"city": ', '"Rome"', "}}\n", "</tool_call>"]
CODED = ["I ask.\n", "<code>\n", "final_answer(", "weather(", "'Rome'", "))\n", "</code>"]
STRUCTURED = ['{"thought":', '"I ask.",', '"code":', '"final_answer(', "weather('Rome'", '))"}']


@agents.tool  # type: ignore[untyped-decorator]
def weather(city: str, days: int = 1) -> str:
    """Say how the weather is.

    Args:
        city: where.
        days: ahead.
    """
    return f"grey in {city} for {days} day"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("agents")
    write_random(folder / "roomy.gguf", context=1 << 15)
    for name, script in (("caller", CALLED), ("coder", CODED), ("structured", STRUCTURED)):
        write_scripted(folder / f"{name}.gguf", [text.encode() for text in script], context=1 << 15)
    limits = Settings(max_tokens=256, rate=0, context=1 << 15, slots=1, max_loaded_models=4)
    with Engine(find_models(folder), limits) as engine:
        yield TestClient(whole_app(engine, limits), base_url="http://testserver/v1")


def model(server: TestClient, name: str, **more: Any) -> Any:
    kept: Any = {"http_client": server, "max_retries": 0}
    return agents.OpenAIServerModel(
        name, api_base="http://testserver/v1", api_key="none", client_kwargs=kept, temperature=0, max_tokens=200, **more
    )


@pytest.mark.parametrize("streams", [False, True])
def test_an_agent_calls_tools(server: TestClient, streams: bool) -> None:
    agent = agents.ToolCallingAgent(
        [weather], model(server, "caller"), max_steps=2, stream_outputs=streams, verbosity_level=0
    )
    agent.run("How is the weather in Rome?")  # the second step has the first one's call and result before it
    calls = [step for step in agent.memory.steps if getattr(step, "tool_calls", None)]
    assert [step.observations for step in calls] == ["grey in Rome for 1 day"] * 2
    assert [step.error for step in calls] == [None] * 2


def test_an_agent_s_model_is_held_to_call(server: TestClient) -> None:
    agent = agents.ToolCallingAgent([weather], model(server, "roomy"), max_steps=1, verbosity_level=0)
    agent.run("How is the weather in Rome?")
    (step,) = [step for step in agent.memory.steps if hasattr(step, "model_output_message") and step.step_number == 1]
    (call,) = step.model_output_message.tool_calls
    assert call.function.name in ("weather", "final_answer")


@pytest.mark.parametrize("streams", [False, True])
def test_an_agent_writes_code(server: TestClient, streams: bool) -> None:
    agent = agents.CodeAgent([weather], model(server, "coder"), max_steps=1, stream_outputs=streams, verbosity_level=0)
    assert agent.run("How is the weather in Rome?") == "grey in Rome for 1 day"


def test_an_agent_writes_code_in_an_answer_of_a_form(server: TestClient) -> None:
    agent = agents.CodeAgent(
        [weather],
        model(server, "structured"),
        max_steps=1,
        use_structured_outputs_internally=True,
        verbosity_level=0,
    )
    assert agent.run("How is the weather in Rome?") == "grey in Rome for 1 day"
    (step,) = [step for step in agent.memory.steps if hasattr(step, "model_output_message")]
    assert json.loads(step.model_output_message.content)["thought"] == "I ask."
