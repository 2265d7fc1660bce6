"""Which families take tools, calls and results: by their true tokenizers and templates, as docs/models.md has it."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES
from true_tokenizers import true_tokenizer

from pipeline.models.chat import encode
from pipeline.models.turns import RefusedError

REPO = Path(__file__).parents[2]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "description": "Its name."}}}
TOOL = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOLS = {"role": "tools", "content": json.dumps([{"type": "function", "function": TOOL}])}
SYSTEM = {"role": "system", "content": "You answer in one word."}
ASKED = {"role": "user", "content": "What is the weather in Bonn?"}
RESULT = {"role": "tool", "content": '{"sky": "grey"}'}
ANSWER = {"role": "assistant", "content": "It is grey."}


def calling(count: int = 1, content: str = "") -> dict[str, Any]:
    functions = [{"name": "get_weather", "arguments": {"city": "Bonn", "say": f'"{at}"\n'}} for at in range(count)]
    calls = [{"id": f"call_{at}", "type": "function", "function": one} for at, one in enumerate(functions)]
    return {"role": "assistant", "content": content, "tool_calls": json.dumps(calls)}


CHATS = {
    "tools": [TOOLS, SYSTEM, ASKED, ANSWER],
    "a call": [TOOLS, ASKED, calling()],
    "its result": [TOOLS, ASKED, calling(), RESULT, ANSWER],
    "two calls": [TOOLS, ASKED, calling(2), RESULT, RESULT, ANSWER],
    "words and a call": [TOOLS, ASKED, calling(1, "One moment."), RESULT, ANSWER],
    "system and result": [TOOLS, SYSTEM, ASKED, calling(), RESULT, ANSWER],
    "a call as text": [ASKED, {"role": "assistant", "content": "get_weather(Bonn)"}, RESULT, ANSWER],
}
ALL = set(CHATS)
CALLS = {"tools", "a call", "its result", "two calls", "words and a call", "system and result"}
TAKEN = {
    "llama-3.2": ALL - {"two calls", "words and a call"},
    "llama-2": set(),
    "qwen-2.5": ALL,
    "qwen-3": ALL,
    "gemma-3": set(),
    "gemma-4": CALLS - {"words and a call"},
    "mistral-v0.3": ALL - {"words and a call"},
    "mistral-nemo": {"tools", "a call", "its result", "two calls"},
    "ministral-3": CALLS,
    "phi-3.5": set(),
    "phi-4-mini": {"tools", "a call as text"},
    "smollm2": {"a call as text"},
    "smollm3": {"a call as text"},
    "granite-3.3": {"tools", "a call as text"},
    "deepseek": {"a call as text"},
    "gpt-oss": CALLS - {"two calls"},
}


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    loaded = true_tokenizer(request.param, tmp_path_factory.mktemp(request.param), with_ends=True)
    loaded.family = request.param
    return loaded


def learnt(tokenizer: Any, chat: list[dict[str, Any]]) -> str | None:
    """What is learnt of a conversation; None where it is refused."""
    try:
        rows = encode(tokenizer, chat, 10**6)
    except RefusedError:
        return None
    texts = []
    for ids, mask in rows:
        for wanted, pairs in groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
            if wanted:
                texts.append(tokenizer.decode([token for token, _ in pairs]))
    return "\n".join(texts)


def test_each_takes_what_its_template_writes_and_refuses_the_rest(tokenizer: Any) -> None:
    assert {name for name, chat in CHATS.items() if learnt(tokenizer, chat) is not None} == TAKEN[tokenizer.family]


def test_calls_and_answers_are_learnt_and_results_and_tools_never(tokenizer: Any) -> None:
    for name in TAKEN[tokenizer.family] - {"a call as text"}:
        said = str(learnt(tokenizer, CHATS[name]))
        assert "sky" not in said
        assert "The weather" not in said
        assert ("get_weather" in said) is (name != "tools")
        assert ("It is grey." in said) is (name != "a call")


def test_the_table_in_the_docs_says_so() -> None:
    text = (REPO / "docs/models.md").read_text(encoding="utf-8")
    head = f"| template | {' | '.join(CHATS)} |\n"
    rows = [
        f"| {name} | {' | '.join('yes' if chat in taken else 'no' for chat in CHATS)} |\n"
        for name, taken in TAKEN.items()
    ]
    assert text.partition(head)[2].partition("|\n")[2].startswith("".join(rows) + "\n")
