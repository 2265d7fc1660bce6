import dataclasses
from typing import Any

import pytest

from llama.errors import RequestError
from llama.types import Sampling
from serve.limits import check_request
from serve.settings import Settings

SETTINGS = Settings(max_tokens=100, temperature_max=1.5)
USER = {"role": "user", "content": "hi"}


def check(messages: list[Any], model: Any = "m", **sampling: Any) -> None:
    how = dataclasses.replace(Sampling(max_tokens=10), **sampling)
    check_request(model, messages, how, {"m": None}, SETTINGS)  # type: ignore[dict-item]


def test_a_request_at_the_limits_passes() -> None:
    check([USER] * 1000, max_tokens=100, temperature=1.5, seed=0, stop=("x" * 256,) * 32, logit_bias=((0, 100),) * 1024)
    for run in ("x" * 8000, "\t" * 8000, "!" * 8000, "漢" * 8000):
        check([{"role": "user", "content": f"{run}a{run}1" if run[0] in "\t!" else f"{run}. {run}"}])


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
        ({"top_k": -1}, "top_k must be"),
        ({"min_p": 1.1}, "min_p must be"),
        ({"repeat_penalty": 0}, "repeat penalty must be a number from 0.01 to 10"),
        ({"logprobs": 21}, "logprobs must be a whole number from 0 to 20"),
        ({"logit_bias": ((5, 101),)}, "logit_bias must be a number from -100 to 100"),
        ({"logit_bias": ((5, 1),) * 1025}, "logit_bias can have 1024 tokens"),
        ({"stop": ("x",) * 33}, "At most 32 texts"),
        ({"stop": ("",)}, "1 to 256 characters"),
    ],
)
def test_sampling_out_of_range_is_refused_with_the_range(sampling: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        check([USER], **sampling)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "x" * 8001}], "has 8,001 characters in a row without a space"),
        ([{"role": "system", "content": "\t" * 8001}, USER], "8,001 characters"),
        ([{"role": "assistant", "content": "so " + "._" * 4001}, USER], "8,002 characters"),
        ([{"role": "user", "content": "e\u0301" * 4001}], "8,002 characters"),
        ([{"role": "critic", "content": "x"}], "role must be system, user, assistant or tool, not 'critic'"),
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
