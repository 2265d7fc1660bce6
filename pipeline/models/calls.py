"""Tools, calls and their results as chat templates take them.

Prepared messages have them in one form (pipeline/core/tool_calls.py); templates do not: some want arguments as JSON
text and some as an object, some want ids, Mistral's such of nine characters, and some no content beside calls. Which is
found by rendering a call in each way.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

from pipeline.models.refusal import RefusedError

Message = dict[str, Any]
Render = Callable[[list[Message], bool], str]  # of messages, with the prompt for an answer after them or without

TOOLS = "tools"  # the role of the message that has the tools
SHORT = re.compile("[A-Za-z0-9]{9}")
QUESTION: Message = {"role": "user", "content": "What is 5 + 6?"}
NAME, KEY, VALUE = "find_sum", "of_these", "5 and 6"
PARTS, ODD = (NAME, KEY, VALUE), (f'\\"{KEY}', "None")  # what a call must have, and what its text has not
PARAMETERS = {"type": "object", "properties": {}}
TOOL = {"type": "function", "function": {"name": NAME, "description": "Adds.", "parameters": PARAMETERS}}
ASKED: list[Message] = [{"role": TOOLS, "content": json.dumps([TOOL])}, QUESTION]


class CallForm(NamedTuple):
    """How a template takes calls."""

    content: str | None = ""  # of a turn that says nothing but what it calls
    as_text: bool = False  # arguments, and not as an object
    ids: str = "given"  # as the data has them; or made where it has none; or short


def called(form: CallForm, calls: Sequence[tuple[str, Any, str]]) -> list[Message]:
    """Return calls, each a name, its arguments and an id or nothing, in a template's form."""
    return [
        ({"id": number} if number else {})
        | {
            "type": "function",
            "function": {"name": name, "arguments": _json(arguments) if form.as_text else arguments},
        }
        for name, arguments, number in calls
    ]


def form_of_calls(render: Render) -> CallForm | None:
    """Return the first form of which a template writes a call as it is; None where it writes it in none."""
    forms = (CallForm(*each) for each in product(("", None), (False, True), ("given", "made", "short")))
    return next((form for form in forms if all(_writes(render, form, number) for number in _ids(form))), None)


def probe(form: CallForm, number: str | None = None) -> Message:
    """Return a turn of the assistant's that calls, and says nothing; by an id, or the last that the form may have."""
    number = _ids(form)[-1] if number is None else number
    return {
        "role": "assistant",
        "content": form.content,
        "tool_calls": called(form, [(NAME, {KEY: VALUE}, number)]),
    }


def linked(messages: Sequence[Message], form: CallForm) -> Iterator[Message]:
    """Yield messages with calls in a template's form, and their results with the name and the id of the call."""
    waiting: list[tuple[str, str, str]] = []  # calls without a result: their id in the data, for the template, the name
    for place, message in enumerate(messages):
        if message.get("tool_calls"):
            calls = json.loads(message["tool_calls"])
            ids = [_id(form, call.get("id"), f"call_{place}_{at}") for at, call in enumerate(calls)]
            waiting = [
                (call.get("id") or "", number, call["function"]["name"])
                for call, number in zip(calls, ids, strict=True)
            ]
            parts = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            yield message | {"tool_calls": called(form, [(*part, at) for part, at in zip(parts, ids, strict=True)])}
        elif message["role"] == "tool":
            yield _result(message, waiting, form, place)
        else:
            yield message


def _result(message: Message, waiting: list[tuple[str, str, str]], form: CallForm, place: int) -> Message:
    given = message.get("tool_call_id") or ""
    found = next(
        (call for call in waiting if given and call[0] == given), waiting[0] if waiting and not given else None
    )
    if found:
        waiting.remove(found)
    number = found[1] if found else _id(form, given, f"call_{place}")
    name = message.get("name") or (found[2] if found else "")
    fields = {key: text for key, text in (("tool_call_id", number), ("name", name)) if text}
    return {"role": "tool", "content": message["content"]} | fields


def _id(form: CallForm, given: str | None, made: str) -> str:
    """Return the id of a call as a template takes it."""
    number = given or ("" if form.ids == "given" else made)
    if form.ids != "short" or SHORT.fullmatch(number):
        return number
    return hashlib.sha256(number.encode()).hexdigest()[:9]


def _ids(form: CallForm) -> tuple[str, ...]:
    return {"given": ("", "call_1"), "made": ("call_1",), "short": ("a1b2c3d4e",)}[form.ids]


def _writes(render: Render, form: CallForm, number: str) -> bool:
    """Return whether a call is written: name and arguments, and neither JSON within JSON nor a Python `None`."""
    with suppress(RefusedError):
        turn, before = render([*ASKED, probe(form, number)], False), render(ASKED, False)
        written, odd = ([part for part in parts if turn.count(part) > before.count(part)] for parts in (PARTS, ODD))
        return len(written) == len(PARTS) and not odd
    return False


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
