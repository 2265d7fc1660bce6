"""Tools that a request has, calls in its messages and what an answer may call, as OpenAI has them, old and new."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import BaseModel, ConfigDict

from llama.errors import RequestError
from llama.types import Tools
from serve.http.json_values import as_json

NAME = re.compile(r"[a-zA-Z0-9_.\-]{1,64}")
MOST_TOOLS = 128  # as with OpenAI
FUNCTION_KEYS = {"name", "description", "parameters", "strict"}
CHOICES = ("none", "auto", "required")

Json = Mapping[str, object]


class ToolFields(BaseModel):
    """The fields of a request."""

    model_config = ConfigDict(strict=True, extra="allow")

    tools: list[dict[str, object]] | None = None
    tool_choice: str | dict[str, object] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, object]] | None = None  # OpenAI's older names for tools
    function_call: str | dict[str, object] | None = None

    @property
    def of_old(self) -> bool:
        """Whether the answer is to call in OpenAI's older way."""
        return bool(self.functions)

    def callable(self) -> Tools | None:
        """Return what the answer may call; None where it may call nothing. Raises RequestError."""
        if self.tools and self.functions:
            raise RequestError("functions is not supported beside tools, which is its newer name.", param="functions")
        where, choice_at = ("functions", "function_call") if self.of_old else ("tools", "tool_choice")
        if self.of_old:
            schemas = [_function(each, f"functions[{at}]") for at, each in enumerate(self.functions or [])]
        else:
            schemas = [_tool(each, f"tools[{at}]") for at, each in enumerate(self.tools or [])]
        if len(schemas) > MOST_TOOLS:
            raise RequestError(f"{where} can have up to {MOST_TOOLS}.", param=where)
        known = [cast(str, cast(Json, schema["function"])["name"]) for schema in schemas]
        if twice := next((name for name in known if known.count(name) > 1), None):
            raise RequestError(f"{where} has {twice!r} twice.", param=where)
        required, names = _choice(self.function_call if self.of_old else self.tool_choice, choice_at, known)
        if names == frozenset() or not schemas:
            return None
        parallel = self.parallel_tool_calls is not False and not self.of_old
        return Tools(schemas, names, required, parallel and (names is None or len(names) != 1 or not required))


def _tool(given: Json, at: str) -> Json:
    if given.get("type", "function") != "function":
        raise RequestError(f"{at}.type: only function is supported.", "unsupported_value", f"{at}.type")
    _check_keys(given, {"type", "function"}, at)
    function = given.get("function")
    if not isinstance(function, dict):
        raise RequestError(f"{at}.function is required.", "missing_required_parameter", f"{at}.function")
    return _function(function, f"{at}.function")


def _function(function: Json, at: str) -> Json:
    _check_keys(function, FUNCTION_KEYS, at)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise RequestError(f"{at}.name must be 1 to 64 letters, digits, _, - and dots.", param=f"{at}.name")
    if not isinstance(function.get("description", ""), str | None):
        raise RequestError(f"{at}.description must be a text.", "invalid_type", f"{at}.description")
    if parameters is not None and not isinstance(parameters, dict):
        raise RequestError(f"{at}.parameters must be a JSON schema.", "invalid_type", f"{at}.parameters")
    as_json(function, at)
    return {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}


def _choice(given: str | Json | None, at: str, known: Sequence[str]) -> tuple[bool, frozenset[str] | None]:
    """Return whether the answer has to call, and what it may: None for anything. Raises RequestError."""
    if given is None:
        return False, None
    if isinstance(given, str):
        if given not in CHOICES:
            raise RequestError(f"{at} is none of {', '.join(CHOICES)}.", "unsupported_value", at)
        if given == "required" and not known:
            raise RequestError(f"{at} requires a call, and there are no tools.", param=at)
        return given == "required", frozenset() if given == "none" else None
    kind = given.get("type", "function")
    inner = given if at == "function_call" or "function" not in given else given["function"]
    if kind == "allowed_tools":
        return _allowed(given.get("allowed_tools", given), at, known)
    if kind != "function" or not isinstance(inner, dict):
        raise RequestError(f"{at} names no function.", "unsupported_value", at)
    _check_keys(inner, {"name", "type"}, at)
    name_at = f"{at}.name" if inner is given else f"{at}.function.name"
    return True, frozenset({_known(inner.get("name"), name_at, known)})


def _allowed(given: object, at: str, known: Sequence[str]) -> tuple[bool, frozenset[str] | None]:
    tools = given.get("tools") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(tools, list) or given.get("mode") not in ("auto", "required"):
        why = f"{at}.allowed_tools needs a mode, auto or required, and tools."
        raise RequestError(why, param=f"{at}.allowed_tools")
    inner = [each.get("function", each) if isinstance(each, dict) else each for each in tools]
    if not all(isinstance(each, dict) for each in inner):
        raise RequestError(f"{at}.allowed_tools.tools names no function.", param=f"{at}.allowed_tools.tools")
    allowed = frozenset(_known(each.get("name"), f"{at}.allowed_tools", known) for each in inner)
    if given["mode"] == "required" and not allowed:
        raise RequestError(f"{at}.allowed_tools requires a call, and has no tools.", param=f"{at}.allowed_tools")
    return given["mode"] == "required", allowed


def _known(name: object, at: str, known: Sequence[str]) -> str:
    if not isinstance(name, str) or name not in known:
        raise RequestError(f"{at}: there is no tool named {str(name)[:100]!r}.", param=at)
    return name


def written_calls(calls: Sequence[object], at: str) -> str:
    """Return the calls of an assistant's turn as JSON, their arguments as objects. Raises RequestError."""
    found = []
    for place, call in enumerate(calls):
        where = f"{at}[{place}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or call.get("type", "function") != "function" or not isinstance(function, dict):
            raise RequestError(f"{where} is no call of a function.", param=where)
        _check_keys(call, {"id", "type", "function", "index"}, where)
        _check_keys(function, {"name", "arguments"}, f"{where}.function")
        name, number = function.get("name"), call.get("id")
        if not isinstance(name, str) or not name or not (number is None or isinstance(number, str)):
            raise RequestError(f"{where} needs a name, and an id that is a text.", param=where)
        arguments = _object(function.get("arguments"), f"{where}.function.arguments")
        ids = {"id": number} if number else {}
        found.append(ids | {"type": "function", "function": {"name": name, "arguments": arguments}})
    return as_json(found, at)


def _object(arguments: object, at: str) -> object:
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"{at} must be an object, as JSON in a text.", param=at)
    return value


def _check_keys(given: Json, known: set[str], at: str) -> None:
    """Raise RequestError for a key that would be passed over."""
    for name in sorted(given.keys() - known):
        if given[name] is not None:
            param = f"{at}.{name[:100]}".encode(errors="replace").decode()
            raise RequestError(f"{param} is not known here: leave it out.", "unknown_parameter", param)
