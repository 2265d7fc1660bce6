"""What a request may ask for. The engine checks it, so that no way in can go around it."""

from collections.abc import Collection, Sequence
from numbers import Real
from typing import Any

from llama.errors import RequestError
from llama.types import Message, Prompt, Sampling
from serve.settings import Settings

MAX_STOPS, MAX_STOP = 4, 100  # texts that end an answer, and the characters of each


def check_request(model: str, prompt: Prompt, sampling: Sampling, models: Collection[str], settings: Settings) -> None:
    """Raise RequestError, naming the figure and the limit, for a request out of bounds.

    Values are checked by type too: through an API anything may arrive here.
    """
    messages: Sequence[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(model, str) or model not in models:
        raise RequestError(f"There is no model named {str(model)[:100]!r}; there is {', '.join(models)}.")
    _check_number("max tokens", sampling.max_tokens, 1, settings.max_tokens, whole=True)
    _check_number("temperature", sampling.temperature, 0, settings.temperature_max)
    if sampling.seed is not None:
        _check_number("seed", sampling.seed, 0, 2**32 - 2, whole=True)
    _check_number("top_p", sampling.top_p, 0, 1)
    _check_number("frequency penalty", sampling.frequency_penalty, -2, 2)
    _check_number("presence penalty", sampling.presence_penalty, -2, 2)
    if len(sampling.stop) > MAX_STOPS or not all(isinstance(s, str) and 0 < len(s) <= MAX_STOP for s in sampling.stop):
        raise RequestError(f"At most {MAX_STOPS} texts of 1 to {MAX_STOP} characters can end an answer.")
    if len(messages) > settings.max_messages:
        raise RequestError(
            f"The conversation has {len(messages)} messages, more than the {settings.max_messages} allowed: start anew."
        )
    for message in messages:
        _check_message(message, settings)
    if not any(message["role"] == "user" for message in messages):
        raise RequestError("There is no message to answer.")


def _check_number(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    number = isinstance(value, int if whole else Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # NaN fails the comparison too
        kind = "a whole number" if whole else "a number"
        raise RequestError(f"{name} must be {kind} from {low:g} to {high:g}, not {value!r:.100}.")


def _check_message(message: Message, settings: Settings) -> None:
    role, content = message["role"], message["content"]
    if role not in ("system", "user", "assistant"):
        raise RequestError(f"A message's role must be system, user or assistant, not {str(role)[:100]!r}.")
    if not isinstance(content, str):
        raise RequestError("A message must be text.")
    # An answer that the server gave must be taken back as history; few texts have 16 characters a token.
    allowed = settings.max_chars if role != "assistant" else max(settings.max_chars, 16 * settings.max_tokens)
    if len(content) > allowed:
        raise RequestError(f"A {role} message has {len(content)} characters; {allowed} are allowed.")
    if role == "user" and not content.strip():
        raise RequestError("The message is empty.")
