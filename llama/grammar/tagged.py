"""Arguments of a call that are written one by one, in tags, as a grammar."""

from collections.abc import Iterable, Mapping
from typing import cast

from llama.call_format import ParameterFormat, plain
from llama.call_parameters import TEXT, types_of
from llama.errors import RequestError
from llama.grammar.lark import NOTHING, Grammar, literal
from llama.grammar.schema import OF_TYPES, Schema, checked, refusal


def tagged_grammar(form: ParameterFormat, function: Mapping[str, object], param: str, rule: str) -> Grammar:
    """Return what the arguments of a tool may be, in the order of its schema, those that are not required left out.

    A value of a text is any; of what else it may be its schema's grammar, or any JSON where there can be none and the
    tool is not `strict`.

    Args:
        form: what stands around them.
        function: the tool.
        param: where its schema stands.
        rule: its name, with which those that it needs begin.

    Raises RequestError for a schema that cannot be held to, of a tool that is strict.
    """
    parameters = cast(Mapping[str, object], function.get("parameters") or {})
    properties, required = parameters.get("properties"), parameters.get("required")
    found, arguments = Grammar({}), list[str]()
    for place, name in enumerate(properties if isinstance(properties, dict) else ()):
        where, argument = f"{param}.properties.{name}", f"{rule}_{place}"
        if set(name) & set('<>"\n') or name != name.strip():
            raise RequestError(f"{where}: the model's form of calls has no place for such a name.", param=where)
        found |= _argument(form, function, name, where, argument)
        arguments.append(argument if isinstance(required, list) and name in required else f"{argument}?")
    return found | Grammar({rule: " ".join(arguments) or NOTHING})


def _argument(form: ParameterFormat, function: Mapping[str, object], name: str, param: str, rule: str) -> Grammar:
    """Return an argument with what stands around it."""
    parameters, strict = cast(Schema, function["parameters"]), function.get("strict") is True
    schema, types = cast(Schema, parameters["properties"])[name], types_of(parameters, name)
    after, before = plain(form.after), plain(form.before) + name
    if types is None or types & TEXT:
        bounds = set(schema) & OF_TYPES["string"] if strict and isinstance(schema, dict) else set()
        if bounds:
            raise refusal(f"{param}.{min(bounds)}", "cannot be held to in the model's form of calls")
        text = _text(schema, after, f"{rule}_value")
        return text | Grammar({rule: f"{literal(before + plain(form.between))} {rule}_value"})
    found, ways = Grammar({}), []
    for place, (between, of) in enumerate(_apart(form, types).items()):
        narrowed = {**cast(Schema, schema), "type": of} if len(of) < len(types) else schema
        found |= _value(narrowed, parameters, after, param, strict, f"{rule}_value{place}")
        ways.append(f"{literal(before + plain(between))} {rule}_value{place}")
    return found | Grammar({rule: " | ".join(ways)})


def _apart(form: ParameterFormat, types: Iterable[str]) -> dict[str, list[str]]:
    """Return types by what stands before their values."""
    found: dict[str, list[str]] = {}
    for of in sorted(types):
        found.setdefault(form.before_value(of), []).append(of)
    return found


def _text(schema: object, after: str, rule: str) -> Grammar:
    """Return a text and what stands after it."""
    words = schema.get("enum", [schema["const"]] if "const" in schema else None) if isinstance(schema, dict) else None
    if isinstance(words, list) and words and all(isinstance(word, str) and after not in word for word in words):
        return Grammar({rule: " | ".join(literal(word + after) for word in words)})
    return Grammar({f"{rule}[lazy]": f"/(?s:.)*/ {literal(after)}"})


def _value(schema: object, root: Schema, after: str, param: str, strict: bool, rule: str) -> Grammar:
    """Return a value as JSON and what stands after it."""
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    try:
        value = checked({**shared, **cast(Schema, schema)}, param, f"{rule}.")
    except RequestError:
        if strict:
            raise
        value = {}
    return Grammar({rule: f"@{rule}_json {literal(after)}"}, {f"{rule}_json": value})
