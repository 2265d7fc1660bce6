"""Calls of tools as grammars, in the form in which a model's chat template writes them."""

import json
from collections.abc import Iterator, Mapping
from typing import cast

from llama.call_format import CallFormat
from llama.calls import NAME
from llama.errors import RequestError
from llama.grammar.lark import START, Grammar, characters, literal, regex
from llama.grammar.notated import notated_grammar
from llama.grammar.schema import WHOLE, Schema, checked, refusal
from llama.grammar.tagged import tagged_grammar
from llama.types import Tools

MOST_CALLS = 32  # in one answer
CALLS, FURTHER, CALL = "calls", "further", "call"
OBJECT: Schema = {"type": "object"}


def calls_grammar(form: CallFormat, tools: Tools) -> Grammar:
    """Return the rule CALLS: one call of a tool that may be called, or several; and FURTHER, what follows their mark.

    Arguments are what the tool's schema says. Of a tool that is not `strict` a schema that cannot be held to lets
    through any object, as with OpenAI. Raises RequestError for such a schema of one that is.
    """
    rules: dict[str, str] = {}
    tagged = Grammar({})
    schemas: dict[str, Schema] = {}
    for place, name, function in callable_tools(tools):
        arguments, param = f"arguments{place}", f"tools[{place}].function.parameters"
        if form.parameters:
            tagged |= tagged_grammar(form.parameters, function, param, arguments)
        elif form.notation:
            tagged |= notated_grammar(form.notation, function, param, arguments)
        else:
            schemas[f"object{place}"] = _arguments(function, place)
            tagged |= Grammar({arguments: f"@object{place}"})
        rules[f"NAME{place}"] = f"{literal(name)}{f' {regex(form.middle)}' if form.middle else ''}"
        rules[f"{CALL}{place}"] = f"NAME{place} {arguments}"
    rules[CALL] = " | ".join(rule for rule in rules if rule.startswith(CALL))
    further = f"({regex(form.joint)} {CALL}){{0,{MOST_CALLS - 1}}}" if tools.parallel and form.joint is not None else ""
    rules[FURTHER] = f"{regex(form.head)} {CALL} {further} {regex(form.tail)}"
    rules[CALLS] = f"({regex(form.lead)})? {characters(form.mark)} {FURTHER}"
    return tagged | Grammar(rules, schemas)


def free_or_calls(form: CallFormat, calls: Grammar) -> Grammar:
    """Return any text, which keeps to calls once their mark begins."""
    rules = {
        START: f"FREE | marked {FURTHER}",
        "FREE": "/(?s:.)*/",
        "marked[lazy]": f"/(?s:.)*/ {literal(form.mark)}",
    }
    return calls | Grammar(rules)


def callable_tools(tools: Tools) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    """Yield of each tool that may be called its place, its name and all that is said of it."""
    for place, schema in enumerate(tools.schemas):
        function = cast(Mapping[str, object], schema["function"])
        name = cast(str, function["name"])
        if tools.names is None or name in tools.names:
            yield place, name, function


def _arguments(function: Mapping[str, object], place: int) -> Schema:
    parameters, param = function.get("parameters"), f"tools[{place}].function.parameters"
    if parameters is None:
        return {"const": {}}
    try:
        of_objects = isinstance(parameters, dict) and parameters.get("type", "object") == "object"
        if not isinstance(parameters, dict) or not of_objects or set(WHOLE) & set(parameters):
            raise refusal(param, "is no schema of an object")
        return checked({"type": "object"} | parameters, param, f"{place}.")
    except RequestError:
        if function.get("strict") is True:
            raise
        return OBJECT


def calls_as_values(form: CallFormat, tools: Tools) -> list[Schema] | None:
    """Return calls as JSON schemas, where a call is a JSON object and nothing else; None where it is not."""
    if form.mark or not form.in_json:
        return None
    try:
        example = json.loads(form.example)
    except ValueError:
        return None
    tools_called = callable_tools(tools)
    return [_as_value(example, name, dict(_arguments(function, place))) for place, name, function in tools_called]


def _as_value(example: Mapping[str, object], name: str, arguments: dict[str, object]) -> Schema:
    definitions = arguments.pop("$defs", {})
    properties = {
        key: arguments if isinstance(value, dict) else {"const": name if value == NAME else value}
        for key, value in example.items()
    }
    closed = {"required": list(example), "additionalProperties": False}
    return {"type": "object", "properties": properties, **closed, "$defs": definitions}
