"""Chat templates, in the process of their own."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from common.errors import UserError
from llama.chat_template import ChatTemplate
from llama.errors import ModelError, RequestError

HI = [{"role": "user", "content": "hi"}]
Start = Callable[[str], ChatTemplate]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts templates, and ends them."""
    with ExitStack() as started:

        def start(template: str) -> ChatTemplate:
            setup = {"template": template, "bos_token": "<s>", "eos_token": "</s>", "today": None}
            return started.enter_context(closing(ChatTemplate(setup)))

        yield start


def variables(**more: Any) -> dict[str, Any]:
    return {"messages": HI, "add_generation_prompt": True, "tools": None, "documents": None} | more


@pytest.mark.parametrize(
    "template",
    [
        "{%- for m in messages %}\n  {{- m.role }}: {{ m['content'] | trim }}\n{% endfor %}\n",
        "  {% if add_generation_prompt %}\n{% generation %}a{% endgeneration %}\n  {% endif %}\n\n",
        "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ '<é>\u2028' | tojson }}",
        "{% for i in range(9) %}{% if i == 3 %}{% continue %}{% elif i > 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{{ tools is none }}{{ documents is none }}{{ functions is defined }}{{ unknown }}",
        "{% set ns = namespace(n=0) %}{% macro m(x) %}{{ x }}{{ bos_token }}{% endmacro %}{{ m(ns.n) }}",
    ],
)
def test_a_conversation_is_written_as_transformers_writes_it(start: Start, template: str) -> None:
    chat = [*HI, {"role": "assistant", "content": " \ud800<b>\u2028é\n"}, {"role": "user", "content": "{{ 7 * 7 }}"}]
    (expected,), _ = render_jinja_template(
        [chat], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    assert start(template).render(variables(messages=chat)) == expected


def test_what_a_template_refuses_is_the_askers_to_hear_and_the_next_is_answered(start: Start) -> None:
    template = start("{% if messages[1:] %}{{ raise_exception('one\nmessage') }}{% endif %}{{ messages[0].content }}")
    with pytest.raises(RequestError, match="refuses this conversation: one\nmessage") as refused:
        template.render(variables(messages=HI * 2))
    assert not isinstance(refused.value, ModelError)
    assert template.render(variables()) == "hi"


@pytest.mark.parametrize(
    ("faulty", "fault"),
    [
        ("{{ 'a' + 1 }}", "TypeError: can only concatenate str"),
        ("{{ messages[7].content.x }}", "UndefinedError: "),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError: "),
        ("{{ ''.__class__.__mro__ }}", "SecurityError: "),
        ("{{ messages[0].content * 10 ** 10 }}", "MemoryError"),
        ("{{ messages[0].content * 10 ** 7 }}", "it writes 20000000 characters"),
        ("{% if %}", "TemplateSyntaxError: "),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "it takes longer than 1 s"),
        ("{{ 7 ** (10 ** 9) }}", "it takes longer than 1 s"),  # while it is read, within one operation
    ],
)
def test_a_template_that_fails_is_told_in_one_line(start: Start, faulty: str, fault: str) -> None:
    with pytest.raises(ModelError) as failed:
        start(faulty).render(variables())
    assert str(failed.value).startswith(f"The model's chat template fails: {fault}")
    assert "\n" not in str(failed.value)


def test_after_one_conversation_without_end_the_next_is_answered(start: Start) -> None:
    template = start(
        "{% for i in range(messages | length ** 9) %}{% for j in range(9999) %}{% endfor %}{% endfor %}done"
    )
    with pytest.raises(ModelError, match="takes longer than 1 s"):
        template.render(variables(messages=HI * 3))
    assert template.render(variables()) == "done"


def test_a_process_that_cannot_be_started_is_told_in_one_line(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama.chat_template.COMMAND", ("/nonexistent/python",))
    with pytest.raises(
        UserError, match=r"^no process can be started for the chat template: No such file or directory$"
    ):
        start("{{ messages }}")


def test_a_process_that_somebody_ended_is_started_anew(start: Start) -> None:
    template = start("{{ messages[0].content }}")
    assert template.render(variables()) == "hi"
    ended = template._process
    os.kill(ended.pid, signal.SIGKILL)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert template.render(variables()) == "hi"
    template.close()
    template.close()
    assert template._process.returncode == -signal.SIGKILL
