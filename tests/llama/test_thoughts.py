"""How models write thoughts, found by their templates; and thoughts told from what is said, wherever it is cut."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_gguf import CHAT_TEMPLATE, write_random

from common.errors import UserError
from llama.call_format import HERMES
from llama.call_stream import Arguments, Called, Calls, Event
from llama.calls import TOOLS, Message, form_of_calls
from llama.chat_template import ChatTemplate
from llama.errors import RequestError
from llama.model import LlamaModel
from llama.prompts import THINKING_SWITCHES
from llama.source import llama_cpp_tree
from llama.thought_format import TAGS, ThoughtFormat, find_thoughts
from llama.thoughts import Thinking, Thoughts
from llama.types import Chat

Find = Callable[[str], ThoughtFormat | None]
MISTRAL = ThoughtFormat("[THINK]", "[/THINK]", "", "parts")
COMMAND = ThoughtFormat("<|START_THINKING|>", "<|END_THINKING|>", "", "reasoning_content")
SEED = ThoughtFormat("<seed:think>", "</seed:think>", "", "reasoning_content")
APERTUS = ThoughtFormat("<|inner_prefix|>", "<|inner_suffix|>", "", "blocks")
GEMMA = ThoughtFormat("<|channel>thought", "<channel|>", "", "reasoning_content")
SOLAR = ThoughtFormat("<|think|>", "<|end|><|begin|>assistant", "<|content|>", "reasoning")
APRIEL = ThoughtFormat("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", "", "reasoning_content")
GPT_OSS = ThoughtFormat(
    "<|channel|>analysis<|message|>", "<|end|><|start|>assistant", "<|channel|>final<|message|>", "thinking"
)
KIMI_3 = ThoughtFormat(
    "<|open|>think<|sep|>", "<|close|>think<|sep|>", "<|open|>response<|sep|>", "reasoning_content",
    ("<|close|>response<|sep|>", "<|close|>message<|sep|>"),
)  # fmt: skip
# Families, by the names of their templates in llama.cpp's sources.
FORMS = {
    "Kimi-K3": KIMI_3,
    "openai-gpt-oss-120b": GPT_OSS,
    "mistralai-Ministral-3-14B-Reasoning-2512": MISTRAL,
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": COMMAND,  # which keeps thoughts before calls alone
    "Cohere2MoE": replace(COMMAND, lead="<|START_TEXT|>"),  # whose prompt begins the thought
    "ByteDance-Seed-OSS": SEED,
    "Apertus-8B-Instruct": APERTUS,
    "google-gemma-4-31B-it": GEMMA,
    "upstage-Solar-Open-100B": SOLAR,
    "MiniMax-M3": ThoughtFormat("<mm:think>", "</mm:think>", "", "reasoning_content"),
    "tencent-Hy3": ThoughtFormat("<think:opensource>", "</think:opensource>", "", "reasoning_content"),
    "Apriel-1.6-15b-Thinker-fixed": APRIEL,
    "Qwen-Qwen3-0.6B": replace(TAGS, field="reasoning_content"),
    "Qwen3.5-4B": replace(TAGS, field="reasoning_content"),  # begun by the prompt, and written where there is none
    "GLM-4.6": replace(TAGS, field="reasoning_content"),
    "LFM2.5-8B-A1B": replace(TAGS, field="thinking"),
    "HuggingFaceTB-SmolLM3-3B": TAGS,  # which takes no thoughts
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": TAGS,
    "LFM2.5-Instruct": TAGS,  # which cuts them off by the mark at their end alone
    "Qwen-Qwen2.5-7B-Instruct": None,
    "meta-llama-Llama-3.2-3B-Instruct": None,
    "mistralai-Mistral-Nemo-Instruct-2407": None,
}


@pytest.fixture(scope="module")
def found() -> Find:
    """How a family's template writes thoughts."""
    try:
        folder = llama_cpp_tree() / "models/templates"
    except UserError as error:
        pytest.skip(f"no package index gives llama.cpp's sources: {error}")

    def find(name: str) -> ThoughtFormat | None:
        text = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        with closing(
            ChatTemplate({"template": text, "bos_token": "<s>", "eos_token": "</s>", "today": None})
        ) as template:

            def render(turns: list[Message], asks: bool) -> str:
                tools = json.loads(str(turns[0]["content"])) if turns[0]["role"] == TOOLS else None
                given = {"messages": turns[1:] if tools else turns, "tools": tools, "add_generation_prompt": asks}
                return template.render(given)

            return find_thoughts(render, RequestError, text, lambda: form_of_calls(render, RequestError))

    return find


@pytest.mark.parametrize("name", FORMS)
def test_a_template_shows_how_its_model_thinks(found: Find, name: str) -> None:
    assert found(name) == FORMS[name]


def split(thinking: Thinking, text: str, cut: int) -> tuple[str, str]:
    """What is thought and said in an answer that comes in pieces of so many characters."""
    thoughts = Thoughts(thinking)
    parts = [thoughts.take(text[at : at + cut]) for at in range(0, len(text), cut)] + [thoughts.take("", last=True)]
    return "".join(part.thought for part in parts), "".join(part.said for part in parts)


CALL = "to=functions.find_sum<|channel|>commentary json<|message|>{}"
# Answers as models of each kind write them: what is thought in them, and what is said.
ANSWERS = [
    (TAGS, "<think>\nIs it?\n</think>\n\nIt is.", "Is it?", "It is."),
    (MISTRAL, "[THINK]Is\nit?[/THINK]It is.", "Is\nit?", "It is."),
    (MISTRAL, "It is [THINK] that is said.", "", "It is [THINK] that is said."),
    (MISTRAL, "[THINK]a [TOOL_CALLS]f[ARGS]{} that is none[/THINK][TOOL_CALLS]f[ARGS]{}",
     "a [TOOL_CALLS]f[ARGS]{} that is none", "[TOOL_CALLS]f[ARGS]{}"),
    (COMMAND, "<|START_THINKING|>Is it?<|END_THINKING|>It is.", "Is it?", "It is."),
    (COMMAND, "<|START_THINKING|><|END_THINKING|><|START_ACTION|>[]", "", "<|START_ACTION|>[]"),
    (SEED, "<seed:think>Is it? <seed:cgt_budget_reflect></seed:think>\nIt is.",
     "Is it? <seed:cgt_budget_reflect>", "It is."),
    (APERTUS, "<|inner_prefix|>Is it?<|inner_suffix|>It is.", "Is it?", "It is."),
    (GEMMA, "<|channel>thought\nIs it?\n<channel|>It is.", "Is it?", "It is."),
    (GEMMA, "<|channel>thought<channel|>It is.", "", "It is."),
    (SOLAR, "<|think|>Is it?<|end|><|begin|>assistant<|content|>It is.", "Is it?", "It is."),
    (SOLAR, "<|content|>It is.", "", "It is."),
    (KIMI_3, "<|open|>think<|sep|>Is it?<|close|>think<|sep|><|open|>response<|sep|>It is.<|close|>response<|sep|>"
     "<|close|>message<|sep|>", "Is it?", "It is."),
    (KIMI_3, "<|open|>response<|sep|>A response, then a message.<|close|>response<|sep|><|close|>message<|sep|>",
     "", "A response, then a message."),
    (KIMI_3, "<|open|>think<|sep|><|close|>think<|sep|><|open|>response<|sep|><|close|>response<|sep|>"
     "<|open|>tools<|sep|>", "", "<|open|>tools<|sep|>"),
    (GPT_OSS, "<|channel|>analysis<|message|>Is it?<|end|><|start|>assistant<|channel|>final<|message|>It is.",
     "Is it?", "It is."),
    (GPT_OSS, "<|channel|>final<|message|>It is.", "", "It is."),
    (GPT_OSS, "It is.", "", "It is."),
    (GPT_OSS, "<|channel|>analysis<|message|>Is it?", "Is it?", ""),
    (GPT_OSS, "<|channel|>analysis<|message|>Is it <|end|> or not?", "Is it <|end|> or not?", ""),
    (GPT_OSS, "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant<|channel|>commentary<|message|>"
     "One moment.<|end|><|start|>assistant<|channel|>commentary to=functions.find_sum <|constrain|>json<|message|>{}",
     "I look.", f"One moment.{CALL}"),
    (GPT_OSS, "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant to=functions.find_sum<|channel|>"
     "commentary json<|message|>{}", "I look.", CALL),
    (GPT_OSS, "<|channel|>analysis to=functions.find_sum<|message|>{}", "", CALL),
    (GPT_OSS, "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
     "<|start|>assistant<|channel|>final<|message|>c", "ab", "c"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "text", "thought", "said"), ANSWERS)
def test_thoughts_are_told_wherever_an_answer_is_cut(form: ThoughtFormat, text: str, thought: str, said: str) -> None:
    for cut in (len(text), 1, 2, 3, 5, 8, 13):
        assert split(Thinking(form), text, cut) == (thought, said)


@pytest.mark.parametrize(
    "header",
    [
        "<|start|>assistant to=functions.find_sum<|channel|>commentary json<|message|>",  # as the template writes it
        "<|start|>assistant<|channel|>commentary to=functions.find_sum <|constrain|>json<|message|>",  # as models do
        "<|start|>assistant<|channel|>commentary to=functions.find_sum json<|message|>",
    ],
)
def test_a_call_in_a_channel_is_called(header: str) -> None:
    middle = r"<\|channel\|>commentary json<\|message\|>"
    form = replace(HERMES, mark="to=functions.", head="", middle=middle, joint=None, tail="", in_json=False)
    text = f'<|channel|>analysis<|message|>Is it?<|end|>{header}{{"x": "<|end|>"}}'
    for cut in (len(text), 1, 5):
        thoughts, calls, events, thought = Thoughts(Thinking(GPT_OSS)), Calls(form), list[Event](), ""
        for at in range(0, len(text), cut):
            parts = thoughts.take(text[at : at + cut], last=at + cut >= len(text))
            thought += parts.thought
            events += calls.take(parts.said, last=at + cut >= len(text))
        arguments = "".join(event.text for event in events if isinstance(event, Arguments))
        assert (thought, events[0], arguments) == ("Is it?", Called("find_sum"), '{"x": "<|end|>"}')


@pytest.mark.parametrize("form", dict.fromkeys(form for form in FORMS.values() if form))
def test_an_answer_is_split_within_a_thought_and_as_it_is_gone_on_with(form: ThoughtFormat) -> None:
    text = form.written("Is it?", "It is.")
    for cut in (len(text), 1):
        assert split(Thinking(form), text, cut) == ("Is it?", "It is.")
        rest = text.removeprefix(form.open)
        assert split(Thinking(form, within=True), rest, cut) == ("Is it?", "It is.")
    assert form.opens(form.written("Is it?", ""))
    assert not form.opens(text)
    assert split(Thinking(form, goes_on=True), " It is.", 1) == ("", " It is.")


@pytest.mark.parametrize(("name", "values"), THINKING_SWITCHES.items())
def test_thinking_is_switched_as_the_template_calls_it(
    tmp_path: Path, name: str, values: tuple[object, object]
) -> None:
    template = CHAT_TEMPLATE + f"{{{{- {name} if {name} is defined }}}}"
    turns: list[Any] = [{"role": "user", "content": "hi"}]
    with LlamaModel(write_random(tmp_path / "one.gguf", template=template), 512, threads=1) as model:
        for wanted, value in zip((True, False), values, strict=True):
            assert model.prompt(Chat(turns, thinks=wanted)) == model.prompt(Chat(turns, switches={name: value}))  # type: ignore[dict-item]
        assert model.prompt(Chat(turns, effort="none")) == model.prompt(Chat(turns, thinks=False))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[-1].reasoning_content }}{{ messages[-1].content }}",  # without a mark
        "{% for m in messages %}{{ m.content + m.thinking }}{% endfor %}",  # fails where there is no thought
        "{{ raise_exception('no reasoning here') }}",
    ],
)
def test_a_template_without_marks_is_taken_for_one_that_knows_no_thoughts(template: str) -> None:
    with closing(ChatTemplate({"template": template, "bos_token": "", "eos_token": "", "today": None})) as written:

        def render(turns: list[Message], asks: bool) -> str:
            return written.render({"messages": turns, "add_generation_prompt": asks})

        assert find_thoughts(render, RequestError, template, lambda: None) is None
