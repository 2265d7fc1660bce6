"""What a request may ask for. The engine checks it, so that no way in can go around it."""

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from llama.errors import RequestError
from llama.types import BareText, Chat, Infill, Message, Prompt, Sampling, TokenIds
from serve.models.registry import Model
from serve.settings import Settings

MAX_STOPS, MAX_STOP = 32, 256  # texts that end an answer, and the characters of each; all are looked for at each token
MAX_BIASES = 1024  # tokens that may be made likelier or less likely, and so many that may end an answer
MAX_LOGPROBS = 20  # tokens whose chances are told beside the drawn one's, as with OpenAI
# Characters of one kind in a row: from 21,000 on, the regular expressions by which llama.cpp splits words for some
# models (tekken, gpt-4o, deepseek) end the process, since they take 8 MB of stack then.
MAX_RUN = 8000
RUNS = re.compile(r"[^\s.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c(|)]+|\s+|(?:[^\w\s]|_)+")


def check_request(
    model: str, prompt: Prompt, sampling: Sampling, models: Mapping[str, Model], settings: Settings
) -> None:
    """Raise RequestError, naming the figure and the limit, for a request out of bounds.

    Values are checked by type too: through an API anything may arrive here. How long a conversation may be is for the
    model's context to say.
    """
    check_model(model, models)
    _check_sampling(sampling, settings)
    if isinstance(prompt, TokenIds):
        if not prompt.ids:
            raise RequestError("The prompt is empty.", param="prompt")
        return
    if isinstance(prompt, str | BareText):
        _check_runs(prompt if isinstance(prompt, str) else prompt.text, "prompt")
        return
    if isinstance(prompt, Infill):
        _check_runs(prompt.before, "prompt")
        _check_runs(prompt.after, "suffix")
        return
    messages = prompt.messages if isinstance(prompt, Chat) else prompt
    for place, message in enumerate(messages):
        _check_message(message, f"messages[{place}]")
    if not any(message["content"].strip() for message in messages):
        text = "The message is empty." if messages else "There is no message to answer."
        raise RequestError(text, param="messages")


def check_model(name: object, models: Mapping[str, Model]) -> None:
    """Raise RequestError for a name that no model has."""
    if not isinstance(name, str) or name not in models:
        raise unknown_model(name, models)


def unknown_model(name: object, models: Iterable[str]) -> RequestError:
    """Return what to raise for a name that no model has."""
    text = f"There is no model named {str(name)[:100]!r}; there is {', '.join(models)}."
    return RequestError(text, "model_not_found", "model")


def _check_sampling(sampling: Sampling, settings: Settings) -> None:
    _check_number("max tokens", sampling.max_tokens, 0 if sampling.echo else 1, settings.max_tokens, whole=True)
    _check_number("temperature", sampling.temperature, 0, settings.temperature_max)
    if sampling.seed is not None:
        _check_number("seed", sampling.seed, 0, 2**32 - 2, whole=True)
    _check_number("top_p", sampling.top_p, 0, 1)
    _check_number("top_k", sampling.top_k, 0, 2**31 - 1, whole=True)
    _check_number("min_p", sampling.min_p, 0, 1)
    _check_number("frequency penalty", sampling.frequency_penalty, -2, 2)
    _check_number("presence penalty", sampling.presence_penalty, -2, 2)
    _check_number("repeat penalty", sampling.repeat_penalty, 0.01, 10)
    if sampling.logprobs is not None:
        _check_number("logprobs", sampling.logprobs, 0, MAX_LOGPROBS, whole=True)
    for _, bias in sampling.logit_bias:
        _check_number("logit_bias", bias, -100, 100)
    _check_number("min tokens", sampling.min_tokens, 0, sampling.max_tokens, whole=True)
    for name, tokens in (("logit_bias", sampling.logit_bias), ("stop_token_ids", sampling.stop_tokens)):
        if len(tokens) > MAX_BIASES:
            raise RequestError(f"{name} can have {MAX_BIASES} tokens at most.", param=name)
    if len(sampling.stop) > MAX_STOPS or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP for s in sampling.stop):
        raise RequestError(f"At most {MAX_STOPS} texts of 1 to {MAX_STOP} characters can end an answer.", param="stop")


def _check_number(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    number = isinstance(value, int if whole else Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # NaN fails the comparison too
        kind = "a whole number" if whole else "a number"
        text = f"{name} must be {kind} from {low:g} to {high:g}, not {value!r:.100}."
        raise RequestError(text, param=name.replace(" ", "_"))


def _check_message(message: Message, where: str) -> None:
    role = message["role"]
    if role not in ("system", "user", "assistant", "tool"):
        why = f"A message's role must be system, user, assistant or tool, not {str(role)[:100]!r}."
        raise RequestError(why, param=f"{where}.role")
    for name, text in message.items():
        if not isinstance(text, str):
            raise RequestError("A message must be text.", param=f"{where}.{name}")
        _check_runs(text, f"{where}.{name}")


def _check_runs(text: str, where: str) -> None:
    """Raise RequestError for a text with a stretch that some tokenizers cannot read."""
    longest = max((len(run[0]) for run in RUNS.finditer(text)), default=0) if len(text) > MAX_RUN else 0
    if longest > MAX_RUN:
        raise RequestError(
            f"The text has {longest:,} characters in a row without a space or a punctuation mark (or of nothing else);"
            f" {MAX_RUN:,} are allowed: break it into lines.",
            param=where,
        )
