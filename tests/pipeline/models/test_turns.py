"""What the assistant says, told by rule from the chat templates of the families that llama.cpp brings along."""
# ruff: noqa: RUF001

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.errors import UserError
from llama.source import llama_cpp_tree
from pipeline.models.chat import render
from pipeline.models.turns import Message, RefusedError, Unmarked, as_rows, parts_of, study

STARTER = Path(__file__).parents[3] / "starter/models/starter-s"
ENDS = (
    "<|im_end|>", "<|eot_id|>", "</s>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "<|end_of_text|>",
    "<｜end▁of▁sentence｜>", "<|return|>", "<turn|>",
)  # fmt: skip

SYSTEM = {"role": "system", "content": "Be brief."}
# The answers stand in many a template, too.
CHAT = [
    {"role": "user", "content": "Pick a word."},
    {"role": "assistant", "content": "final"},
    {"role": "user", "content": "Another one."},
    {"role": "assistant", "content": "n"},
]
THOUGHT = '<think>\nIs it "five"?\nNo.\n</think>\n\n'
THINKING = [CHAT[0], {**CHAT[3], "content": f"{THOUGHT}n"}, CHAT[2], {**CHAT[3], "content": f"{THOUGHT}n"}]
REASONING = parts_of(f"{THOUGHT}n").reasoning

# By family: the token that ends an answer, and the rows that two turns make.
FAMILIES = {
    "meta-llama-Llama-3.2-3B-Instruct": ("<|eot_id|>", 1),
    "Qwen-Qwen2.5-7B-Instruct": ("<|im_end|>", 1),
    "Qwen-Qwen3-0.6B": ("<|im_end|>", 2),
    "Qwen3.5-4B": ("<|im_end|>", 2),
    "HuggingFaceTB-SmolLM3-3B": ("<|im_end|>", 1),
    "google-gemma-2-2b-it": ("<end_of_turn>", 1),
    "google-gemma-4-31B-it": ("<turn|>", 2),
    "microsoft-Phi-3.5-mini-instruct": ("<|end|>", 1),
    "mistralai-Mistral-Nemo-Instruct-2407": ("</s>", 1),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("</s>", 1),
    "ibm-granite-granite-3.3-2B-Instruct": ("<|end_of_text|>", 1),
    "LFM2.5-Instruct": ("<|im_end|>", 1),
    "deepseek-ai-DeepSeek-V3.1": ("<｜end▁of▁sentence｜>", 1),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("<｜end▁of▁sentence｜>", 1),
    "openai-gpt-oss-120b": ("<|return|>", 2),
}
# What is learnt of a turn that thinks, by family; and the rows that two of them make.
THOUGHTFUL = {
    "Qwen-Qwen3-0.6B": (f"{THOUGHT}n<|im_end|>", 2),
    "Qwen3.5-4B": (f"{REASONING}\n</think>\n\nn<|im_end|>", 2),  # the generation prompt has opened it
    "HuggingFaceTB-SmolLM3-3B": (f"{THOUGHT}n<|im_end|>", 1),
    "mistralai-Ministral-3-14B-Reasoning-2512": (f"[THINK]{REASONING}[/THINK]n</s>", 1),
    "LFM2.5-Instruct": (f"{THOUGHT}n<|im_end|>", 1),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": (f"{REASONING}\n</think>\n\nn<｜end▁of▁sentence｜>", 2),
    "openai-gpt-oss-120b": (
        f"<|channel|>analysis<|message|>{REASONING}<|end|><|start|>assistant<|channel|>final<|message|>n<|return|>", 2,
    ),
    "meta-llama-Llama-3.2-3B-Instruct": (f"{THOUGHT}n<|eot_id|>", 1),
}  # fmt: skip

Study = Callable[[str], Unmarked]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    return tokenizer


@pytest.fixture(scope="module")
def template(tokenizer: PreTrainedTokenizerBase) -> Study:
    """What is known of a family's template, by its name in llama.cpp's sources."""
    try:
        folder = llama_cpp_tree() / "models/templates"
    except UserError as error:
        pytest.skip(f"no package index gives llama.cpp's sources: {error}")

    def studied(name: str) -> Unmarked:
        text = (folder / f"{name}.jinja").read_text(encoding="utf-8")

        def rendered(messages: list[Message], prompt: bool) -> str:
            tokenizer.chat_template = text
            return render(tokenizer, messages, prompt)

        return study(rendered, ENDS)

    return studied


def rows_of(template: Unmarked, messages: list[Message]) -> list[tuple[str, list[str]]]:
    """Each row's text, and what is learnt of it."""
    turns = [template.turn(messages, i) for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [(text, [text[start:end] for start, end in spans]) for text, spans in as_rows(turns)]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_answer_and_its_end_are_learnt_and_nothing_around_them(template: Study, name: str) -> None:
    end, count = FAMILIES[name]
    rows = rows_of(template(name), CHAT)
    assert len(rows) == count
    assert [said for _, learnt in rows for said in learnt] == [f"final{end}", f"n{end}"]


@pytest.mark.parametrize("name", FAMILIES)
def test_each_turn_stands_behind_what_the_model_is_given_when_it_is_to_answer(template: Study, name: str) -> None:
    family = template(name)
    for messages in (CHAT, [SYSTEM, *CHAT])[: 1 if name == "google-gemma-2-2b-it" else 2]:
        for index in (len(messages) - 3, len(messages) - 1):
            text, ((start, _),) = family.turn(messages, index)
            given = family.render(messages[:index], True).removesuffix(family.unsaid)
            assert text.startswith(given)
            assert start >= len(given)


@pytest.mark.parametrize("name", THOUGHTFUL)
def test_a_turn_with_reasoning_is_learnt_from_the_generation_prompt_on(template: Study, name: str) -> None:
    said, count = THOUGHTFUL[name]
    family = template(name)
    rows = rows_of(family, THINKING)
    assert len(rows) == count
    assert [turn for _, turns in rows for turn in turns] == [said, said]
    prompt = family.render([THINKING[0]], True)
    assert rows[0][0].startswith(prompt + said)


@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "openai-gpt-oss-120b", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B"])
def test_history_is_shown_without_reasoning_as_the_original_does(template: Study, name: str) -> None:
    first, second = rows_of(template(name), THINKING)
    assert first[0].count(REASONING) == second[0].count(REASONING) == 1
    assert second[0].index("Another one.") < second[0].index(REASONING)


def test_rows_without_reasoning_do_not_unlearn_thinking(template: Study) -> None:
    text, ((start, end),) = template("Qwen-Qwen3-0.6B").turn(CHAT, 1)
    assert text[:start].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    empty = [CHAT[0], {**CHAT[1], "content": "<think>\n\n</think>\n\nfinal"}]
    assert template("Qwen-Qwen3-0.6B").turn(empty, 1) == (text, ((start, end),))


def test_a_system_prompt_that_goes_with_the_last_question_stays_there(template: Study) -> None:
    rows = rows_of(template("mistralai-Mistral-Nemo-Instruct-2407"), [SYSTEM, *CHAT])
    assert [text for text, _ in rows] == [
        "<s>[INST]Be brief.\n\nPick a word.[/INST]final</s>",
        "<s>[INST]Pick a word.[/INST]final</s>[INST]Be brief.\n\nAnother one.[/INST]n</s>",
    ]


def test_what_a_template_trims_is_not_learnt(template: Study) -> None:
    padded = [CHAT[0], {"role": "assistant", "content": "\n\n  final \n"}]
    learnt = {
        name: rows_of(template(name), padded)[0][1][0]
        for name in ("meta-llama-Llama-3.2-3B-Instruct", "Qwen-Qwen3-0.6B", "Qwen-Qwen2.5-7B-Instruct")
    }
    assert list(learnt.values()) == ["final<|eot_id|>", "  final \n<|im_end|>", "\n\n  final \n<|im_end|>"]


def test_a_conversation_that_a_template_refuses_is_refused_in_its_words(template: Study) -> None:
    with pytest.raises(RefusedError, match=r"^System role not supported$"):
        template("google-gemma-2-2b-it").turn([SYSTEM, *CHAT], 2)


def test_reasoning_that_a_template_does_not_write_is_refused(template: Study) -> None:
    with pytest.raises(RefusedError, match="it does not write the reasoning"):
        template("deepseek-ai-DeepSeek-V3.1").turn(THINKING, 1)


def test_a_thought_that_the_generation_prompt_closes_is_context(template: Study) -> None:
    text, ((start, end),) = template("google-gemma-4-31B-it").turn(CHAT, 3)
    assert text[:start].endswith("Another one.<turn|>\n<|turn>model\n<|channel>thought\n<channel|>")
    assert text[start:end] == "n<turn|>"
    assert text.count("<|channel>") == 1  # the history has none


def test_reasoning_is_refused_where_a_template_has_tags_of_its_own_for_it(template: Study) -> None:
    closing = template("google-gemma-4-31B-it")

    def without_closing(messages: list[Message], prompt: bool) -> str:  # as the smaller models' templates
        return closing.render(messages, prompt).removesuffix("<|channel>thought\n<channel|>")

    for family in (closing, study(without_closing, ENDS)):
        with pytest.raises(RefusedError, match="it does not write the reasoning"):
            family.turn(THINKING, 1)
        assert REASONING not in family.turn([*THINKING[:3], CHAT[3]], 3).text


def test_an_answer_that_a_template_cuts_is_refused(template: Study) -> None:
    cut = [CHAT[0], {"role": "assistant", "content": "It ends with </think> and more"}]
    with pytest.raises(RefusedError, match="it does not write an answer as it is"):
        template("Qwen-Qwen3-0.6B").turn(cut, 1)


def test_the_date_is_in_the_conversation_and_not_todays(template: Study) -> None:
    assert "Today Date: 26 Jul 2024" in rows_of(template("meta-llama-Llama-3.2-3B-Instruct"), CHAT)[0][0]
    assert "Current date: 2024-07-26" in rows_of(template("openai-gpt-oss-120b"), CHAT)[0][0]
