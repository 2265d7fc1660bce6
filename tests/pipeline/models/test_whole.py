"""A rendered conversation has all that was said in it, or is refused with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.models.chat import encode
from pipeline.models.refusal import RefusedError
from pipeline.models.whole import require_whole

STARTER = Path(__file__).parents[3] / "starter/models/starter-s"
TOOLS = {"role": "tools", "content": '[{"function": {"name": "add"}}, {"function": {"name": "take"}}]'}
CALL = [{"type": "function", "function": {"name": "add", "arguments": {"to": [5, None], "as": 'a "sum"\n'}}}]
CHAT = [
    TOOLS,
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "What is 5 + 6?\n"},
    {"role": "assistant", "content": "", "tool_calls": json.dumps(CALL)},
    {"role": "tool", "content": "11"},
    {"role": "assistant", "content": "<think>\nEleven.\n</think>\n\nIt is 11."},
]
WRITTEN = [
    '{"name": "add"}, {"name": "take"}',
    "Be brief.",
    "What is 5 + 6?",
    json.dumps(CALL[0]["function"]),
    '"11"',
    "It is 11.",
]


def test_a_text_that_has_all_of_it_is_whole_whatever_it_writes_around() -> None:
    require_whole(" | ".join(WRITTEN), CHAT)
    require_whole(" | ".join([*WRITTEN[2:3], *WRITTEN[:2], *WRITTEN[3:]]), CHAT)  # what comes first may stand later
    as_python = 'add to [5, None] as a \\"sum\\"\\n'
    require_whole(" | ".join([*WRITTEN[:3], as_python, *WRITTEN[4:]]), CHAT)


LOST = {
    0: "it leaves out the tools",
    1: "it leaves out the system message",
    2: "it leaves out what the user said",
    3: "it leaves out what the assistant called",
    5: "it leaves out what the assistant said",
}


@pytest.mark.parametrize(("place", "reason"), LOST.items())
def test_what_is_left_out_is_said(place: int, reason: str) -> None:
    with pytest.raises(RefusedError, match=f"^{reason}$"):
        require_whole(" | ".join(text for at, text in enumerate(WRITTEN) if at != place), CHAT)


def test_words_that_stand_in_a_later_message_alone_are_left_out() -> None:
    with pytest.raises(RefusedError, match=r"^it leaves out"):  # the result is within the answer
        require_whole(" | ".join([*WRITTEN[:4], *WRITTEN[5:]]), CHAT)


@pytest.mark.parametrize("change", [('"to"', '"from"'), ("5, null", "6, null"), ("sum", "total"), ("add", "plus")])
def test_each_name_and_argument_of_a_call_counts(change: tuple[str, str]) -> None:
    texts = [*WRITTEN[:3], WRITTEN[3].replace(*change), *WRITTEN[4:]]
    with pytest.raises(RefusedError, match=r"^it leaves out what the assistant called$"):
        require_whole(" | ".join(texts), CHAT)


def tokenizer_with(template: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    tokenizer.chat_template = template
    return tokenizer


def without(role: str) -> str:
    """A template that leaves one role out, but for its name."""
    return (
        "{% for m in messages %}{{ m.role + ' 11 ' }}{% if m.role != '" + role + "' %}{{ m.content }}{% endif %}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant 11 ' }}{% endif %}"
    )


PLAIN: list[dict[str, Any]] = [
    *CHAT[1:3],
    {"role": "assistant", "content": "add(5, 6)"},
    *CHAT[4:5],
    {"role": "assistant", "content": "11"},
]


@pytest.mark.parametrize(("role", "who"), [("system", "the system message"), ("tool", "what the tool said")])
def test_a_template_that_leaves_somebody_out_is_refused_though_it_writes_such_words(role: str, who: str) -> None:
    encode(tokenizer_with(without("nobody")), PLAIN, 1000)
    with pytest.raises(RefusedError, match=f"^it leaves out {who}$"):
        encode(tokenizer_with(without(role)), PLAIN, 1000)
    encode(tokenizer_with(without(role)), [PLAIN[1], PLAIN[4]], 1000)  # where nobody of that role speaks


def test_a_template_that_leaves_out_some_words_alone_is_refused_for_those() -> None:
    template = without("nobody").replace("{{ m.content }}", "{{ m.content.replace('secret', '') }}")
    told = [{"role": "user", "content": "a secret"}, {"role": "assistant", "content": "Yes."}]
    with pytest.raises(RefusedError, match=r"^it leaves out what the user said$"):
        encode(tokenizer_with(template), told, 1000)
    encode(tokenizer_with(template), [{"role": "user", "content": "a word"}, told[1]], 1000)


def test_a_switch_in_a_system_message_is_for_the_template() -> None:
    told = [{"role": "system", "content": "Be brief. /no_think"}, *CHAT[2:3]]
    require_whole("Mode: off | Be brief. | What is 5 + 6?", told)
    with pytest.raises(RefusedError, match=r"^it leaves out the system message$"):
        require_whole("Mode: off | What is 5 + 6?", told)


def test_what_follows_the_last_turn_that_is_learnt_is_in_no_row() -> None:
    chat: list[dict[str, Any]] = [*PLAIN[1:3], *PLAIN[3:4]]
    assert encode(tokenizer_with(without("tool")), chat, 1000) == encode(
        tokenizer_with(without("tool")), chat[:2], 1000
    )


def test_a_conversation_that_is_only_shown_is_held_against_it_too() -> None:
    shown = [*PLAIN[:2], {"role": "assistant", "content": "Yo", "weight": 0}]
    encode(tokenizer_with(without("nobody")), shown, 1000)
    with pytest.raises(RefusedError, match=r"^it leaves out the system message$"):
        encode(tokenizer_with(without("system")), shown, 1000)
