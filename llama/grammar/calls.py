"""Calls of tools as grammars, in the form in which a model's chat template writes them."""

from collections.abc import Mapping
from typing import cast

from llama.call_format import CallFormat
from llama.errors import RequestError
from llama.grammar.expressions import EMPTY, ROOT, Choice, Expression, Grammar, Repeat, Rule, Text, maybe, row, scoped
from llama.grammar.json_text import ANY_JSON, OBJECT
from llama.grammar.marks import until
from llama.grammar.patterns import pattern
from llama.grammar.schema import WHOLE, refusal, schema_grammar
from llama.grammar.tagged import tagged_grammar
from llama.types import Tools

MOST_CALLS = 32  # in one answer
CALLS, FURTHER, CALL, FREE = "calls", "calls after their mark", "call", "text or calls"


def calls_grammar(form: CallFormat, tools: Tools) -> Grammar:
    """Return the rule CALLS: one call of a tool that may be called, or several; and FURTHER, what follows their mark.

    Arguments are what the tool's schema says. Of a tool that is not `strict` a schema that cannot be held to lets
    through any object, as with OpenAI. Raises RequestError for such a schema of one that is.
    """
    rules: dict[str, Expression] = {}
    calls: list[Expression] = []
    for place, schema in enumerate(tools.schemas):
        function = cast(Mapping[str, object], schema["function"])
        name = cast(str, function["name"])
        if tools.names is None or name in tools.names:
            scope = f"tool {place}"
            arguments = _arguments(form, function, f"tools[{place}].function.parameters")
            rules.update(scoped(arguments, scope, shared=ANY_JSON))
            calls.append(row(name, pattern(form.middle, "tools"), Rule(f"{scope} {ROOT}")))
    further: Expression = EMPTY
    if tools.parallel and form.joint is not None:
        further = Repeat(row(pattern(form.joint, "tools"), Rule(CALL)), 0, MOST_CALLS - 1)
    rules[CALL] = Choice(tuple(calls))
    rules[FURTHER] = row(pattern(form.head, "tools"), Rule(CALL), further, pattern(form.tail, "tools"))
    rules[CALLS] = row(maybe(pattern(form.lead, "tools")), form.mark, Rule(FURTHER))
    return rules


def free_or_calls(form: CallFormat) -> Grammar:
    """Return the rule FREE beside those of `calls_grammar`: any text, which keeps to calls once their mark begins."""
    return {FREE: Rule(f"{form.mark} 0"), **until(form.mark, after=Rule(FURTHER), without=True)}


def _arguments(form: CallFormat, function: Mapping[str, object], param: str) -> Grammar:
    if form.parameters:
        return tagged_grammar(form.parameters, function, param)
    parameters = function.get("parameters")
    if parameters is None:
        return {ROOT: Text("{}")}
    try:
        of_objects = isinstance(parameters, dict) and parameters.get("type", "object") == "object"
        if not isinstance(parameters, dict) or not of_objects or set(WHOLE) & set(parameters):
            raise refusal(param, "is no schema of an object")
        return schema_grammar({"type": "object"} | parameters, param)
    except RequestError:
        if function.get("strict") is True:
            raise
        return {ROOT: OBJECT, **ANY_JSON}
