"""Tools that a row has, calls of them, and their results, in the shapes that data has them.

In what is prepared, tools are a first message of the role `tools` whose content is their JSON, in OpenAI's form:
[{"type": "function", "function": {"name", "description", "parameters"}}]. An assistant's calls are JSON in its
field `tool_calls`: [{"id"?, "type": "function", "function": {"name", "arguments"}}], arguments as an object. Results
are messages of the role `tool`, with `name` and `tool_call_id` where the data has them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NotRequired, TypedDict

from pipeline.core.messages import (
    NOT_TEXT,
    TOO_DEEP,
    Columns,
    Message,
    Messages,
    UnusableRowError,
    as_text,
    is_other_part,
    joined,
    parsed,
    says_something,
)

Json = dict[str, object]


class Function(TypedDict):
    """What is called, and with what."""

    name: str
    arguments: Json


class Call(TypedDict):
    """A call of a tool."""

    id: NotRequired[str]
    type: str
    function: Function


TOOLS = "tools"  # the role of the message that has them
TOOLS_COLUMNS = ("tools", "functions", "available_tools")
CALLS_KEYS = ("tool_calls", "function_call")  # of a turn
RESULT_KEYS = ("name", "tool_call_id")
CALLING_ROLES = ("function_call", "tool_call")  # ShareGPT's names of turns that are calls, as JSON in a text
DEEPEST = 64  # levels of a schema or of arguments
ARGUMENTS_KEYS = ("arguments", "parameters")
PARTS = ("tool_use", "tool_result", "tool_call", "thinking", "reasoning")  # of a content, which become a turn's fields
THOUGHT_KEYS = ("thinking", "value", "text")  # of a part
QUERY_COLUMN, ANSWERS_COLUMN = "query", "answers"  # xLAM's: what is asked, and the calls that answer it

TOOLS_NOT_READ = "tools are no list of function schemas; data.ignore=[{}] leaves them out"
CALL_NOT_READ = "a tool call without a name, or with arguments that are no object"
NOT_JSON = "tools, calls or a result that are no JSON"
CALLS_OUTSIDE = "tool calls outside an assistant's turn, or twice in one"
THOUGHT_LATER = "reasoning behind what is said"
IN_SYSTEM = "tools stand in the system message, and not before it"


def tools_of(columns: Columns) -> Messages:
    """Return the message that has a row's tools; none where it has no tools.

    Raises:
        UnusableRowError: they cannot be read.
    """
    name = next((name for name in TOOLS_COLUMNS if name in columns and says_something(columns[name])), None)
    if name is None:
        return []
    value = parsed(columns[name])
    if not says_something(value):  # such as a cell with an empty list
        return []
    try:
        return read_tools(value if isinstance(value, list) else [value])
    except ValueError as error:
        raise UnusableRowError(TOOLS_NOT_READ.format(name)) from error


def read_tools(value: Sequence[object]) -> Messages:
    """Return the message that has these tools.

    Raises:
        ValueError: one is no schema of a function.
    """
    if _is_deep(value):
        raise UnusableRowError(TOO_DEEP)
    return [{"role": TOOLS, "content": written([_tool(parsed(item)) for item in value])}]


def stand_in(tools: Message, system: str) -> bool:
    """Return whether a system message has the schemas already, as Hermes' has them beside a column of their own."""
    functions = [tool["function"] for tool in json.loads(tools["content"])]
    names = [name for function in functions for name in ("parameters", function["name"], *_properties(function))]
    return all(f'"{name}"' in system or f"'{name}'" in system for name in names)


def unfolded(turns: Iterable[object]) -> Iterator[object]:
    """Yield turns: calls and reasoning among the parts of a content as fields, results as turns of their own."""
    for turn in turns:
        content = turn.get("content") if isinstance(turn, dict) else None
        parts = _parts(content, *PARTS) if isinstance(content, list) else []
        if isinstance(turn, dict) and isinstance(content, list) and parts:
            yield from _unfolded(turn, content, [part for part in content if part not in parts])
        else:
            yield turn


def _parts(content: list[object], *kinds: str) -> list[Json]:
    """Return the parts of a content that are of these kinds."""
    return [part for part in content if isinstance(part, dict) and part.get("type") in kinds]


def _unfolded(turn: Json, content: list[object], others: list[object]) -> Iterator[Json]:
    for part in _parts(content, "tool_result"):
        yield {"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": part.get("content")}
    calls: list[object] = [
        {"id": part.get("id"), "function": {"name": part.get("name"), "arguments": part.get("input")}}
        for part in _parts(content, "tool_use")
    ]
    calls += [part.get("value") for part in _parts(content, "tool_call")]
    thoughts = _parts(content, "thinking", "reasoning")
    if thoughts != content[: len(thoughts)]:  # it is written before all else
        raise UnusableRowError(THOUGHT_LATER)
    if others or calls or thoughts:
        fields = {"tool_calls": calls, "reasoning_content": "\n\n".join(map(_thought, thoughts))}
        yield turn | {"content": others} | {key: value for key, value in fields.items() if value}


def _thought(part: Json) -> str:
    return joined(next((part[key] for key in THOUGHT_KEYS if key in part), None))


def calls_of(turn: dict[str, object], role: str) -> list[Call]:
    """Return the calls in the fields of a turn.

    Raises:
        UnusableRowError: they cannot be read, or stand where no call does.
    """
    filled = [key for key in CALLS_KEYS if says_something(parsed(turn.get(key)))]
    if not filled:
        return []
    if role != "assistant" or len(filled) > 1:
        raise UnusableRowError(CALLS_OUTSIDE)
    return read_calls(turn[filled[0]])


def read_calls(value: object) -> list[Call]:
    """Return calls: one or a list, which may be JSON in a text.

    Raises:
        UnusableRowError: one has no name, or arguments that are no object.
    """
    value = parsed(value)
    return [_call(parsed(item)) for item in (value if isinstance(value, list) else [value])]


def spoken_calls(text: str) -> list[Call]:
    """Return the calls that a text is, JSON with names and arguments; none where it is any other text."""
    try:
        return read_calls(text)
    except UnusableRowError:
        return []


def with_calls(message: Message, calls: list[Call], tools: Messages) -> Message:
    """Return a message with calls, less arguments that are null and that the tool does not have.

    A table of Arrow's gives each call the arguments of all others, as null.
    """
    if not calls:
        return message
    known = {tool["function"]["name"]: tool["function"] for tool in json.loads(tools[0]["content"])} if tools else {}
    for call in calls:
        if (tool := known.get(call["function"]["name"])) is not None:
            call["function"]["arguments"] = _own(call["function"]["arguments"], tool)
    return {**message, "tool_calls": written(calls)}


def result_of(turn: dict[str, object], content: object) -> Message:
    """Return the result of a call as a message, with the tool and the call that it is of as far as its turn says.

    Raises:
        UnusableRowError: it is a picture or the like.
    """
    message: Message = {"role": "tool", "content": _result(content)}
    if name := as_text(turn.get("name")).strip():
        message["name"] = name
    if number := as_text(turn.get("tool_call_id")).strip():
        message["tool_call_id"] = number
    return message


def asked_and_called(columns: Columns) -> Messages:
    """Return a question and the calls that answer it.

    Raises:
        UnusableRowError: they cannot be read.
    """
    calls = read_calls(columns.get(ANSWERS_COLUMN))
    answer: Message = {"role": "assistant", "content": ""}
    return [
        {"role": "user", "content": as_text(columns.get(QUERY_COLUMN))},
        with_calls(answer, calls, tools_of(columns)),
    ]


def mapped(message: Message, change: Callable[[str], str]) -> Message:
    """Return a message with its texts changed: its content, and those within what it calls; tools stay as they are."""
    if message["role"] == TOOLS:
        return message
    changed: Message = {**message, "content": change(message["content"])}
    if text := message.get("tool_calls"):
        calls: list[Call] = json.loads(text)
        for call in calls:
            call["function"]["arguments"] = {
                key: _each(value, change) for key, value in call["function"]["arguments"].items()
            }
        changed["tool_calls"] = written(calls)
    return changed


def written(value: object) -> str:
    """Return a value as JSON, each character as it is.

    Raises:
        UnusableRowError: it is none, such as a date in a table of Arrow's, or nested too deeply.
    """
    if _is_deep(value):
        raise UnusableRowError(TOO_DEEP)
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UnusableRowError(NOT_JSON) from error


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = [item for items in inner for item in items]
    return bool(level)


def _result(value: object) -> str:
    """Return what a tool gave back, a text, parts of one, or anything else, as text."""
    parts = value if isinstance(value, list) else [value]
    if any(is_other_part(part) for part in parts):
        raise UnusableRowError(NOT_TEXT)
    try:
        return joined(value)
    except UnusableRowError:
        return written(value)


def _tool(value: object) -> Json:
    """Return a tool in OpenAI's form, without what is null: tables of Arrow's fill schemas up with it."""
    inner = value.get("function") if isinstance(value, dict) else None
    function = inner if isinstance(inner, dict) else value
    if not isinstance(value, dict) or not isinstance(function, dict) or not _is_name(function.get("name")):
        raise ValueError
    if "input_schema" in function:  # as Anthropic calls it
        function = {("parameters" if key == "input_schema" else key): item for key, item in function.items()}
        return {"type": "function", "function": _without_null(function)}
    whole: Json = value if value is not function else {"function": function}
    return {key: _without_null(item) for key, item in {"type": "function", **whole}.items() if item is not None}


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _call(value: object) -> Call:
    outer = value if isinstance(value, dict) else {}
    inner = parsed(outer.get("function"))
    function = inner if isinstance(inner, dict) else outer
    name = function.get("name")
    if not isinstance(name, str) or not _is_name(name):
        raise UnusableRowError(CALL_NOT_READ)
    given = next((function[key] for key in ARGUMENTS_KEYS if says_something(function.get(key))), None)
    arguments = {} if given is None else parsed(parsed(given))  # some data has JSON in JSON
    if not isinstance(arguments, dict):
        raise UnusableRowError(CALL_NOT_READ)
    call: Call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    number = outer.get("id")
    return {"id": str(number), **call} if isinstance(number, str | int) and number != "" else call


def _own(arguments: Json, tool: Json) -> Json:
    known = _properties(tool)
    return {key: value for key, value in arguments.items() if value is not None or key in known}


def _properties(tool: Json) -> Json:
    """Return the parameters of a tool by their names."""
    parameters = tool.get("parameters")
    properties = parameters.get("properties", parameters) if isinstance(parameters, dict) else None
    return properties if isinstance(properties, dict) else {}


def _each(value: object, change: Callable[[str], str]) -> object:
    """Return a value with each text in it changed."""
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
