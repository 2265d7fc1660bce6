"""Tools and calls under chat templates of several ways to take them, and what of them is learnt."""

import json
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llama.calls import CallForm
from pipeline.core.config import ModelSettings
from pipeline.models.chat import encode, load_tokenizer, prompt_ids, render, template_of
from pipeline.models.turns import RefusedError

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
Load = Callable[[str], PreTrainedTokenizerBase]

TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
TOOLS = {"role": "tools", "content": json.dumps([TOOL])}
ASKED = {"role": "user", "content": "Rain?"}
RESULT = {"role": "tool", "content": "grey", "tool_call_id": None, "name": None}
ANSWER = {"role": "assistant", "content": "No."}


def calling(content: str = "", *numbers: str | None, **arguments: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments or {"city": "Köln"}}
    calls = [({"id": at} if at else {}) | {"type": "function", "function": function} for at in numbers or (None,)]
    return {"role": "assistant", "content": content, "tool_calls": json.dumps(calls, ensure_ascii=False)}


CHAT = [TOOLS, ASKED, calling(), RESULT, ANSWER]


def written(call: str, around: str = "m['content'] or ''", result: str = "m['content']", before: str = "") -> str:
    """A template with its own way of writing a call, `c`."""
    return (
        "{% for t in tools or [] %}{{ 'tool ' + t.function.name + eos_token }}{% endfor %}" + before
        + "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'tool' %}{{ " + result + " }}"
        "{% else %}{{ " + around + " }}{% for c in m['tool_calls'] or [] %}" + call + "{% endfor %}{% endif %}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )  # fmt: skip


OBJECT = written("{{ '<' + c.function.name + c.function.arguments | tojson + '>' }}")
TEXT = written("{{ '<' + c.function.name + c.function.arguments + '>' }}")
NULL = written("{{ '<' + c.function.name + c.function.arguments | tojson + '>' if m['content'] is none }}")
REFUSED = "{{ raise_exception('no id of nine') }}"
SHORT = written(
    "{% if (c.id or '') | length != 9 %}" + REFUSED + "{% endif %}"
    "{{ '<' + c.function.name + c.function.arguments | tojson + c.id + '>' }}",
    result="m['content'] + ' for ' + m['tool_call_id']",
)
MADE = written(
    "{% if not c.id %}" + REFUSED + "{% endif %}{{ '<' + c.function.name + c.function.arguments | tojson + '>' }}",
    result="m['name'] + ' gave ' + m['content']",
)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def tokenizer(template: str) -> PreTrainedTokenizerBase:
        path = tmp_path / "template.jinja"
        path.write_text(template)
        unset = dict.fromkeys(("revision", "merge_path", "merge_revision"))
        settings: dict[str, Any] = {"name": "t", "path": str(STARTER), "chat_template": str(path)}
        return load_tokenizer(ModelSettings(**settings, load_in_4bit=False, **unset))

    return tokenizer


def learnt(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> list[str]:
    """What is learnt of a conversation, a text for each stretch."""
    stretches = []
    for ids, mask in encode(tokenizer, messages, 10_000):
        for wanted, pairs in groupby(zip(ids, mask, strict=True), key=lambda pair: pair[1]):
            if wanted:
                stretches.append(
                    str(tokenizer.decode([token for token, _ in pairs])).removesuffix("<|eot_id|>").strip()
                )
    return stretches


def whole(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> str:
    ((ids, _),) = encode(tokenizer, messages, 10_000)
    return str(tokenizer.decode(ids))


FORMS = [
    (OBJECT, CallForm()),
    (TEXT, CallForm(as_text=True)),
    (NULL, CallForm(content=None)),
    (MADE, CallForm(ids="made")),
]


@pytest.mark.parametrize(("template", "form"), FORMS)
def test_a_call_is_given_as_the_template_takes_it_and_learnt_with_its_end(
    load: Load, template: str, form: CallForm
) -> None:
    tokenizer = load(template)
    assert template_of(tokenizer, tokenizer.get_chat_template()).calls == form
    assert learnt(tokenizer, CHAT) == ['<weather{"city": "Köln"}>', "No."]
    assert whole(tokenizer, CHAT).startswith("tool weather<|eot_id|>")
    assert learnt(tokenizer, CHAT[:3]) == ['<weather{"city": "Köln"}>']


def test_ids_of_nine_are_made_where_a_template_wants_such_and_results_have_them(load: Load) -> None:
    tokenizer = load(SHORT)
    for numbers, results in (((None, None), ("", "")), (("call_a", "call_b"), ("call_b", "call_a"))):
        answered = [{**RESULT, "content": f"r{at}", "tool_call_id": number} for at, number in enumerate(results)]
        chat = [TOOLS, ASKED, calling("", *numbers), *answered, ANSWER]
        (calls, _), text = learnt(tokenizer, chat), whole(tokenizer, chat)
        ids = [part[-9:] for part in calls.split(">")[:2]]
        assert len(set(ids)) == 2
        first, second = ids if numbers[0] is None else ids[::-1]
        assert f"r0 for {first}" in text
        assert f"r1 for {second}" in text
        assert encode(tokenizer, chat, 1000) == encode(load(SHORT), chat, 1000)  # the same each time


def test_a_result_has_the_name_of_its_call_where_a_template_asks_for_it(load: Load) -> None:
    assert "weather gave grey" in whole(load(MADE), CHAT)
    assert "wind gave grey" in whole(load(MADE), [*CHAT[:3], {**RESULT, "name": "wind"}, ANSWER])


def test_results_without_ids_are_those_of_the_tools_that_they_name(load: Load) -> None:
    functions = [{"function": {"name": name, "arguments": {}}} for name in ("sun", "wind")]
    called = {"role": "assistant", "content": "", "tool_calls": json.dumps(functions)}
    results = [{"role": "tool", "content": f"{name} it is", "name": name} for name in ("wind", "sun")]
    text = whole(load(SHORT), [TOOLS, ASKED, called, *results, ANSWER])
    ids = dict(re.findall(r"<(sun|wind)\{\}(\w{9})>", text))
    assert f"wind it is for {ids['wind']}" in text
    assert f"sun it is for {ids['sun']}" in text


def test_the_words_beside_a_call_are_learnt_with_it(load: Load) -> None:
    assert learnt(load(OBJECT), [TOOLS, ASKED, calling("Let me see."), RESULT, ANSWER])[0] == (
        'Let me see.<weather{"city": "Köln"}>'
    )


def test_a_turn_that_calls_and_has_no_weight_is_not_learnt(load: Load) -> None:
    assert learnt(load(OBJECT), [TOOLS, ASKED, calling() | {"weight": 0}, RESULT, ANSWER]) == ["No."]


def test_reasoning_before_a_call_is_learnt(load: Load) -> None:
    tokenizer = load(OBJECT)
    thinking = "<think>\nBonn or Köln?\n</think>\n\n"
    assert learnt(tokenizer, [TOOLS, ASKED, calling(thinking), RESULT, ANSWER])[0].startswith("<think>\nBonn or Köln?")


def test_a_template_that_writes_the_history_otherwise_is_learnt_behind_its_prompt(load: Load) -> None:
    """As Mistral's: the system prompt stands with a question that is the last message."""
    told = "m['role'] == 'user' and loop.last and messages[0]['role'] == 'system'"
    said = (
        "'' if m['role'] == 'system' else (messages[0]['content'] + ' ' if " + told + " else '') + (m['content'] or '')"
    )
    call = "{{ '<' + c.function.name + c.function.arguments | tojson + '>' }}"
    tokenizer = load(written(call, said))
    assert "user: Brief. Rain?" in whole(tokenizer, [{"role": "system", "content": "Brief."}, ASKED, calling()])
    with pytest.raises(RefusedError, match=r"^it leaves out the system message$"):  # once there is a result
        encode(tokenizer, [{"role": "system", "content": "Brief."}, *CHAT[1:]], 1000)


MARKED = (
    "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}{{ m.role }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{{ c.function | tojson }}{% endfor %}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
)


def test_calls_are_learnt_where_a_template_marks_them_and_refused_where_it_marks_them_not(load: Load) -> None:
    assert json.loads(learnt(load(MARKED), CHAT)[0]) == json.loads(calling()["tool_calls"])[0]["function"]
    calls = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    unmarked = MARKED.replace(calls, "").replace("{% endgeneration %}", "{% endgeneration %}" + calls)
    assert learnt(load(unmarked), [ASKED, ANSWER]) == ["No."]
    with pytest.raises(RefusedError, match=r"^its marks leave out what the assistant called$"):
        encode(load(unmarked), CHAT, 1000)


def test_of_two_templates_the_one_for_tools_is_taken_where_there_are_some() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = {"default": written("").replace("m['role'] + ': '", "'plain '"), "tool_use": OBJECT}
    assert learnt(tokenizer, CHAT) == ['<weather{"city": "Köln"}>', "No."]
    assert whole(tokenizer, [ASKED, ANSWER]).startswith("plain Rain?")


def test_the_shipped_template_takes_tools_calls_and_results(load: Load) -> None:
    tokenizer = load((REPO / "pipeline/models/templates/plain.jinja").read_text())
    assert learnt(tokenizer, CHAT) == ['{"name": "weather", "arguments": {"city": "Köln"}}', "No."]
    text = whole(tokenizer, [TOOLS, ASKED, calling("Wait.", None, None), RESULT, {**RESULT, "content": "wet"}, ANSWER])
    assert 'Tools: [{"type": "function", "function": {"name": "weather"' in text
    assert "Tool: grey<|eot_id|>\nTool: wet<|eot_id|>\n" in text


def test_no_control_token_comes_out_of_tools_calls_and_results(load: Load) -> None:
    tokenizer, end = load(OBJECT), "<|eot_id|>"
    ordinary = whole(tokenizer, CHAT).count(end)
    forged = [
        {**TOOLS, "content": TOOLS["content"].replace('"d"', f'"{end}"')},
        ASKED, calling(city=end), {**RESULT, "content": end}, ANSWER,
    ]  # fmt: skip
    ((ids, _),) = encode(tokenizer, forged, 10_000)
    assert ids.count(tokenizer.eos_token_id) == ordinary
    assert learnt(tokenizer, forged)[0] == f'<weather{{"city": "{end}"}}>'


def test_a_control_token_in_a_question_that_is_asked_is_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    forged = [{"role": "user", "content": "Hi<|eot_id|>"}]
    ids = prompt_ids(tokenizer, forged)
    assert ids.count(tokenizer.convert_tokens_to_ids("<|eot_id|>")) == 1
    assert tokenizer.decode(ids) == render(tokenizer, forged, True)
    assert (
        prompt_ids(tokenizer, [ASKED])
        == tokenizer(render(tokenizer, [ASKED], True), add_special_tokens=False)["input_ids"]
    )
