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
from typing import NamedTuple, cast

Message = dict[str, object]
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


def called(form: CallForm, calls: Sequence[tuple[str, object, str]]) -> list[Message]:
    """Return calls, each a name, its arguments and an id or nothing, in a template's form."""
    return [
        ({"id": number} if number else {})
        | {
            "type": "function",
            "function": {"name": name, "arguments": _json(arguments) if form.as_text else arguments},
        }
        for name, arguments, number in calls
    ]


def form_of_calls(render: Render, refusal: type[Exception]) -> CallForm | None:
    """Return the first form of which a template writes a call as it is, if it can with its result behind it.

    Args:
        render: writes messages, the first of them perhaps the tools.
        refusal: what it raises where the template refuses.

    Returns:
        The form; None where it writes a call in none.
    """
    forms = [CallForm(*each) for each in product(("", None), (False, True), ("given", "made", "short"))]
    tried = ((form, answered) for answered in (True, False) for form in forms)

    def fits(form: CallForm, answered: bool) -> bool:
        return all(_writes(render, refusal, form, number, answered) for number in _ids(form))

    return next((form for form, answered in tried if fits(form, answered)), None)


def probe(form: CallForm, number: str | None = None) -> Message:
    """Return a turn of the assistant's that calls, and says nothing; by an id, or the last that the form may have."""
    number = _ids(form)[-1] if number is None else number
    return {
        "role": "assistant",
        "content": form.content,
        "tool_calls": called(form, [(NAME, {KEY: VALUE}, number)]),
    }


class Waiting(NamedTuple):
    """A call without a result."""

    given: str  # its id in the data, or nothing
    number: str  # its id for the template
    name: str


def linked(messages: Sequence[Message], form: CallForm) -> Iterator[Message]:
    """Yield messages with calls in a template's form, and their results with the name and the id of the call."""
    waiting: list[Waiting] = []
    for place, message in enumerate(messages):
        if message.get("tool_calls"):
            calls = [(call["function"], call.get("id") or "") for call in json.loads(cast(str, message["tool_calls"]))]
            ids = [_id(form, given, f"call_{place}_{at}") for at, (_, given) in enumerate(calls)]
            pairs = list(zip(calls, ids, strict=True))
            waiting = [Waiting(given, number, function["name"]) for (function, given), number in pairs]
            parts = [(function["name"], function["arguments"], number) for (function, _), number in pairs]
            yield message | {"tool_calls": called(form, parts)}
        elif message["role"] == "tool":
            yield _result(message, waiting, form, place)
        else:
            yield message


def _result(message: Message, waiting: list[Waiting], form: CallForm, place: int) -> Message:
    """Return a result with the id and the name of its call: that of its id, else the first that is for its tool."""
    given, name = (cast(str, message.get(key) or "") for key in ("tool_call_id", "name"))
    fits = (call for call in waiting if (call.given == given if given else name in ("", call.name)))
    if (found := next(fits, None)) is not None:
        waiting.remove(found)
    number = found.number if found else _id(form, given, f"call_{place}")
    fields = {"tool_call_id": number, "name": name or (found.name if found else "")}
    return {"role": "tool", "content": message["content"]} | {key: text for key, text in fields.items() if text}


def _id(form: CallForm, given: str | None, made: str) -> str:
    """Return the id of a call as a template takes it."""
    number = given or ("" if form.ids == "given" else made)
    if form.ids != "short" or SHORT.fullmatch(number):
        return number
    return hashlib.sha256(number.encode()).hexdigest()[:9]


def _ids(form: CallForm) -> tuple[str, ...]:
    return {"given": ("", "call_1"), "made": ("call_1",), "short": ("a1b2c3d4e",)}[form.ids]


def _writes(render: Render, refusal: type[Exception], form: CallForm, number: str, answered: bool) -> bool:
    """Return whether a call is written: name and arguments, and neither JSON within JSON nor a Python `None`."""
    result: Message = {"role": "tool", "content": "11", "name": NAME}
    result |= {"tool_call_id": number} if number else {}
    with suppress(refusal):
        turn = render([*ASKED, probe(form, number), *([result] if answered else [])], False)
        before = render(ASKED, False)
        written, odd = ([part for part in parts if turn.count(part) > before.count(part)] for parts in (PARTS, ODD))
        return len(written) == len(PARTS) and not odd
    return False


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
