import dataclasses
from typing import Any

import pytest

from llama.errors import RequestError
from llama.types import Sampling
from serve.limits import check_request
from serve.settings import Settings

SETTINGS = Settings(max_tokens=100, max_chars=50, max_messages=3, temperature_max=1.5)
USER = {"role": "user", "content": "hi"}


def check(messages: list[Any], model: Any = "m", **sampling: Any) -> None:
    check_request(model, messages, dataclasses.replace(Sampling(max_tokens=10), **sampling), ["m"], SETTINGS)


def test_a_request_at_the_limits_passes() -> None:
    long = {"role": "system", "content": "x" * 50}
    check([long, {"role": "assistant", "content": "y" * 1600}, USER], max_tokens=100, temperature=1.5, seed=0)


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({"max_tokens": 101}, "max tokens must be a whole number from 1 to 100, not 101"),
        ({"max_tokens": 0}, "max tokens must be"),
        ({"max_tokens": 1.5}, "max tokens must be"),
        ({"max_tokens": True}, "max tokens must be"),
        ({"temperature": 1.6}, "temperature must be a number from 0 to 1.5, not 1.6"),
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_sampling_out_of_range_is_refused_with_the_range(sampling: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        check([USER], **sampling)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "x" * 51}], "A user message has 51 characters; 50 are allowed"),
        ([{"role": "system", "content": "x" * 51}, USER], "A system message has 51"),
        ([{"role": "assistant", "content": "x" * 1601}, USER], "An? assistant message has 1601 characters; 1600"),
        ([USER] * 4, "has 4 messages, more than the 3 allowed"),
        ([{"role": "tool", "content": "x"}], "role must be system, user or assistant, not 'tool'"),
        ([{"role": "\ud800", "content": "x"}], r"not '\\ud800'"),  # no UTF-8 has it
        ([{"role": "user", "content": {"path": "/etc/passwd"}}], "must be text"),
        ([{"role": "user", "content": " \n"}], "is empty"),
        ([], "no message to answer"),
    ],
)
def test_messages_out_of_bounds_are_refused_with_figure_and_limit(messages: list[Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        check(messages)


@pytest.mark.parametrize("model", ["x", None, 7])
def test_an_unknown_model_is_refused_with_those_there_are(model: Any) -> None:
    with pytest.raises(RequestError, match=r"no model named .*; there is m"):
        check([USER], model=model)
