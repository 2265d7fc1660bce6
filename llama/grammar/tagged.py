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
    properties, required = parameters.get("properties") or {}, parameters.get("required") or []
    rules: dict[str, Expression] = {}
    arguments: list[Expression] = []
    for place, (name, schema) in enumerate(cast(Mapping[str, object], properties).items()):
        where, scope = f"{param}.properties.{name}", f"argument {place}"
        if set(name) & set('<>"\n') or name != name.strip():
            raise RequestError(f"{where}: the model's form of calls has no place for such a name.", param=where)
        types = types_of(parameters, name)
        begun = row(plain(form.before), name, plain(form.between if types == TEXT else form.unquoted))
        if types is None or types & TEXT:
            if (
                function.get("strict") is True
                and isinstance(schema, dict)
                and (bound := set(schema) & OF_TYPES["string"])
            ):
                raise refusal(f"{where}.{min(bound)}", "cannot be held to in the model's form of calls")
            rules |= scoped(_text(schema, plain(form.after)), scope, shared={})
            argument = row(begun, Rule(f"{scope} {ROOT}"))
        else:
            value = _value(schema, parameters, where, strict=function.get("strict") is True)
            rules |= scoped(value, scope, shared=ANY_JSON)
            argument = row(begun, Rule(f"{scope} {ROOT}"), plain(form.after))
        arguments.append(argument if name in cast(list[object], required) else maybe(argument))
    return {**rules, ROOT: row(*arguments) if arguments else EMPTY}


def _text(schema: object, after: str) -> Grammar:
    """Return a text and what stands after it."""
    words = schema.get("enum", [schema["const"]] if "const" in schema else None) if isinstance(schema, dict) else None
    if isinstance(words, list) and words and all(isinstance(word, str) and after not in word for word in words):
        return {ROOT: row(texts(words), after)}
    return {ROOT: Rule(f"{after} 0"), **until(after)}


def _value(schema: object, root: Mapping[str, object], param: str, strict: bool) -> Grammar:
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    try:
        return schema_grammar({**shared, **cast(Mapping[str, object], schema)}, param)
    except RequestError:
        if strict:
            raise
        return {ROOT: VALUE, **ANY_JSON}
