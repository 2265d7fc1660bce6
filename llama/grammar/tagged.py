"""Arguments of a call that are written one by one, in tags, as a grammar."""

from collections.abc import Mapping
from typing import cast

from llama.call_format import ParameterFormat, plain
from llama.call_parameters import TEXT, types_of
from llama.errors import RequestError
from llama.grammar.expressions import EMPTY, ROOT, Expression, Grammar, Rule, maybe, row, scoped, texts
from llama.grammar.json_text import ANY_JSON, VALUE
from llama.grammar.marks import until
from llama.grammar.schema import OF_TYPES, refusal, schema_grammar


def tagged_grammar(form: ParameterFormat, function: Mapping[str, object], param: str) -> Grammar:
    """Return what the arguments of a tool may be, in the order of its schema, those that are not required left out.

    A value of a text is any; of what else it may be its schema's grammar, or any JSON where there can be none and the
    tool is not `strict`.

    Args:
        form: what stands around them.
        function: the tool.
        param: where its schema stands.

    Raises RequestError for a schema that cannot be held to, of a tool that is strict.
    """
    parameters = cast(Mapping[str, object], function.get("parameters") or {})
    properties, required = parameters.get("properties"), parameters.get("required")
    rules: dict[str, Expression] = {}
    arguments: list[Expression] = []
    for place, (name, schema) in enumerate(properties.items() if isinstance(properties, dict) else ()):
        where, scope = f"{param}.properties.{name}", f"argument {place}"
        if set(name) & set('<>"\n') or name != name.strip():
            raise RequestError(f"{where}: the model's form of calls has no place for such a name.", param=where)
        types, strict = types_of(parameters, name), function.get("strict") is True
        if types is None or types & TEXT:
            bounds = set(schema) & OF_TYPES["string"] if strict and isinstance(schema, dict) else set()
            if bounds:
                raise refusal(f"{where}.{min(bounds)}", "cannot be held to in the model's form of calls")
            between, value = form.between, _text(schema, plain(form.after))
        else:
            between, value = form.unquoted, _value(schema, parameters, plain(form.after), where, strict)
        rules |= scoped(value, scope, shared=ANY_JSON)
        argument = row(plain(form.before), name, plain(between), Rule(f"{scope} {ROOT}"))
        arguments.append(argument if isinstance(required, list) and name in required else maybe(argument))
    return {**rules, ROOT: row(*arguments) if arguments else EMPTY}


def _text(schema: object, after: str) -> Grammar:
    """Return a text and what stands after it."""
    words = schema.get("enum", [schema["const"]] if "const" in schema else None) if isinstance(schema, dict) else None
    if isinstance(words, list) and words and all(isinstance(word, str) and after not in word for word in words):
        return {ROOT: row(texts(words), after)}
    return {ROOT: Rule(f"{after} 0"), **until(after)}


def _value(schema: object, root: Mapping[str, object], after: str, param: str, strict: bool) -> Grammar:
    """Return a value as JSON and what stands after it."""
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    try:
        value = schema_grammar({**shared, **cast(Mapping[str, object], schema)}, param)
    except RequestError:
        if strict:
            raise
        return {ROOT: row(VALUE, after), **ANY_JSON}
    return {**value, ROOT: row(value[ROOT], after)}
