"""Calls of tools in an answer, told from what it says as it comes, by the form in which its model writes them.

What looks like a call and turns out to be none is what the answer says: nothing of it is lost.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

from llama.call_format import CallFormat, first_tag, plain
from llama.call_notation import NotedArguments
from llama.call_parameters import Parameters
from llama.marks import begun
from llama.types import Tools

NAME = r"(?P<name>[\w.\-]+)"
# What a call's JSON may begin with: ids and types before the name, and the name before the arguments.
JSON_CALL = (
    r'\[?\s*\{\s*(?:"(?:id|type|index|tool_call_id)"\s*:\s*(?:"[^"]*"|\d+)\s*,\s*)*'
    r'"(?:name|tool_name|function)"\s*:\s*"(?P<name>[^"]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*'
)
JSON_TAIL = r'^(?:\s*,\s*"\w+"\s*:\s*"[^"]*")*[\s}\]]*'  # what it may end with behind the arguments
TAG = re.compile(r"(?:<|```).*", re.DOTALL)  # of a form's tail, what is no JSON
PYTHON_TAG = r"(?:<\|python_tag\|>)?"  # that Llama 3 may put before it
LONGEST_START = 400  # characters that an answer may have before it is known to be no call


class Said(NamedTuple):
    """What an answer says."""

    text: str


class Called(NamedTuple):
    """A call begins."""

    name: str


class Arguments(NamedTuple):
    """What the arguments of the last call go on with, as JSON."""

    text: str


Event = Said | Called | Arguments


class JsonEnd:
    """Finds where a JSON value ends in a text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._escaped = self._begun = False

    def within(self, text: str) -> int | None:
        """Return how much of a text still is the value; None while it goes on."""
        for place, char in enumerate(text):
            if self._in_string:
                self._in_string = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._in_string = self._begun = True
            elif char in "{[":
                self._depth, self._begun = self._depth + 1, True
                continue
            elif char in "}]":
                self._depth -= 1
                if self._depth < 0:  # of what a number or a word stands in
                    return place
            elif char == "," and not self._depth:
                return place
            if self._begun and not self._in_string and self._depth <= 0:
                return place + 1
        return None


class Calls:
    """Splits one answer."""

    def __init__(self, form: CallFormat, tools: Tools | None = None) -> None:
        """Of a model that calls some tools in a form; of calls that are not `parallel` only the first is one."""
        self._form, self._parallel = form, tools is None or tools.parallel
        self._schemas = _schemas(tools) if tools else {}
        before = _lenient(form.head)
        name_to_arguments = r"\s+" if form.middle.isspace() and not form.parameters else _lenient(form.middle)
        call = JSON_CALL if form.in_json else NAME + name_to_arguments + rf"(?=\s*(?:{_arguments_begin(form)}))"
        mark = re.escape(form.mark) if form.mark else PYTHON_TAG
        self._marks = [form.mark]
        if form.parameters and (tag := plain(form.head).strip()).startswith("<"):
            self._marks.append(tag)  # by which a call is known, too: models leave the mark out at times
            mark = f"(?:{mark})?"
        self._first = re.compile(mark + (r"\s*" + call if form.in_json else before + call))
        between = "" if form.joint is None or form.in_json else _lenient(form.joint)
        self._next = re.compile(between + call)
        tag = (TAG.search(form.tail) or [""])[0]
        self._closing, self._tag = re.compile(JSON_TAIL + f"(?:{_lenient(tag)})?"), plain(tag)
        self._held = ""  # not told yet
        self._end: JsonEnd | None = None  # of the arguments that are under way
        self._parameters: Parameters | NotedArguments | None = None  # the same, where they are no JSON
        self._fresh = False  # whether none of them has come
        self._quoted: str | None = None  # so far, where they are JSON within a JSON text
        self.count = 0

    def take(self, text: str, last: bool = False) -> Iterator[Event]:
        """Yield what has come; what may yet be a call is held back until it is known, or is the `last`."""
        self._held += text
        while (events := self._step(last)) is not None:
            yield from events
        if last and self._held:
            rest, self._held = self._held, ""
            rest = self._closing.sub("", rest, count=1) if self.count else rest
            if rest.strip() and not (self.count and self._tag.startswith(rest)):
                yield Said(rest)

    def _step(self, last: bool) -> list[Event] | None:
        """Return what is known by now, taken from what is held; None where there is nothing yet."""
        if self._end:
            return self._arguments()
        if self._parameters:
            return self._tagged(self._parameters, last)
        if self.count:
            return self._begun(self._next.search(self._held)) if self._parallel else None
        if self._form.mark:
            return self._before_mark(last)
        return self._at_start(last)

    def _before_mark(self, last: bool) -> list[Event] | None:
        places = [(at, mark) for mark in self._marks if (at := self._held.find(mark)) >= 0]
        at, mark = min(places, default=(-1, ""))
        if at < 0:
            kept = 0 if last else max(begun(self._held, mark) for mark in self._marks)
            # White space before a mark is the form's.
            free = len(self._held) - kept if last else len(self._held[: len(self._held) - kept].rstrip())
            return self._say(free) if free else None
        if at:
            said = self._held[:at].rstrip()
            self._held = self._held[at:]
            return [Said(said)] if said else []
        if found := self._first.match(self._held):
            return self._begun(found)
        if len(self._held) > LONGEST_START + len(mark):
            return self._say(len(mark))
        return None

    def _at_start(self, last: bool) -> list[Event] | None:
        """Look for a call where nothing but its JSON says that it is one: at the beginning alone."""
        bare = self._held.lstrip()
        if found := self._first.match(bare):
            self._held = bare
            return self._begun(found)
        opens = not bare or bare[0] == "{" or PYTHON_TAG[3:-2].replace("\\", "").startswith(bare[:14])
        may_be = opens if self._form.in_json else re.fullmatch(r"[\w.\-]{0,64}\s*", bare)
        if may_be and len(bare) < LONGEST_START and not last:
            return None
        self._first = re.compile(r"(?!)")
        return self._say(len(self._held)) if self._held else None

    def _say(self, length: int) -> list[Event]:
        said, self._held = self._held[:length], self._held[length:]
        return [Said(said)]

    def _begun(self, found: re.Match[str] | None) -> list[Event] | None:
        if not found:
            return None
        self._held = self._held[found.end() :]
        self.count += 1
        schema = self._schemas.get(found["name"], {})
        if self._form.parameters:
            self._parameters = Parameters(self._form, schema)
        elif self._form.notation:
            self._parameters = NotedArguments(self._form.notation, schema)
        else:
            self._end, self._fresh = JsonEnd(), True
        return [Called(found["name"])]

    def _arguments(self) -> list[Event] | None:
        self._held = self._held.lstrip() if self._fresh else self._held
        if not self._held or self._end is None:
            return None
        end = self._end.within(self._held)
        text = self._held[:end]
        self._held = self._held[len(text) :]
        if self._fresh and text.startswith('"'):
            self._quoted = ""
        self._fresh = False
        if self._quoted is not None:
            self._quoted += text
            text = "" if end is None else _unquoted(self._quoted)
        if end is not None:
            self._end = self._quoted = None
        return [Arguments(text)] if text else []

    def _tagged(self, parameters: Parameters | NotedArguments, last: bool) -> list[Event] | None:
        before = self._held
        told, self._held, ended = parameters.take(before, last)
        if ended:
            self._parameters = None
        return ([Arguments(told)] if told else []) if told or ended or self._held != before else None


def _schemas(tools: Tools) -> dict[str, Mapping[str, object]]:
    """Return what tools take, by their names."""
    functions = [cast(Mapping[str, object], schema["function"]) for schema in tools.schemas]
    return {str(each["name"]): cast(Mapping[str, object], each.get("parameters") or {}) for each in functions}


def _arguments_begin(form: CallFormat) -> str:
    """Return a pattern of what the arguments of a call begin with; or of what follows, where there may be none."""
    if form.parameters is None:
        return re.escape(form.notation.open) if form.notation else r"\{"
    return f"{first_tag(form.parameters.before)}|{first_tag(form.tail)}"


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text


def _lenient(pattern: str) -> str:
    """Return a pattern that takes white space as it comes, between two tags, too."""
    return re.sub(r"\s+|(?<=>)(?=<)", r"\\s*", pattern)
