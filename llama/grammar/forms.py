"""What answers must look like, by the fields that ask for it, as grammars."""

import json
from typing import TYPE_CHECKING

from llama.call_format import CallFormat
from llama.errors import RequestError
from llama.grammar.automaton import Automaton
from llama.grammar.calls import CALLS, FREE, calls_grammar, free_or_calls
from llama.grammar.expressions import (
    ROOT,
    Expression,
    Grammar,
    Repeat,
    Rule,
    among,
    choice,
    maybe,
    row,
    scoped,
    texts,
)
from llama.grammar.gbnf import read_gbnf
from llama.grammar.json_text import ANY_JSON, OBJECT
from llama.grammar.marks import until
from llama.grammar.matcher import Matcher
from llama.grammar.patterns import pattern
from llama.grammar.schema import schema_grammar
from llama.thought_format import ThoughtFormat
from llama.thoughts import Thinking
from llama.types import Chat, Form, Prompt, Tools

if TYPE_CHECKING:
    from llama.model import LlamaModel

LONGEST = 100_000  # characters of a grammar or a schema
START = "thoughts and answer"


def start_matcher(
    form: Form | None, question: Prompt, model: "LlamaModel", thinking: Thinking, calls: CallFormat | None = None
) -> Matcher | None:
    """Return what an answer is held to, after what may be thought before it; None where that is nothing.

    Of an answer that is gone on with the beginning counts.

    Args:
        form: what the answer must look like.
        question: what is answered; it may have tools.
        model: the one that answers.
        thinking: whether the answer begins within a thought, and the marks of one.
        calls: how the model calls tools, where it may.

    Raises RequestError for a form that cannot be held to, and a beginning that is none of it.
    """
    chat = question if isinstance(question, Chat) else None
    begun = chat.messages[-1] if chat and chat.goes_on else None
    may_open = chat is not None and begun is None and model.thinks
    thoughts = thinking.form if thinking.within or may_open else None
    param = form.param if form else "tools"
    try:
        grammar = _grammar(form, chat.tools if chat else None, calls)
        if grammar is None:
            return None
        if thoughts:
            grammar = {**grammar, **after_thoughts(thoughts, thinking.within)}
        automaton = Automaton(grammar, START if thoughts else ROOT)
        # A model that may call or not is left its control tokens, but for the calls themselves.
        matcher = Matcher(automaton, model.pieces(model.shown(calls, thinking.form)), free=FREE in grammar)
        said = _said(begun["content"], thinking) if begun else ""
        if not matcher.take(said.encode(errors="replace")):
            raise RequestError("The assistant's turn that is to be gone on with is no beginning of such an answer.")
    except RecursionError:
        raise RequestError(f"{param} is nested too deeply.", param=param) from None
    except RequestError as error:
        if form is None and chat and chat.tools and chat.tools.lenient:
            return None  # tools too many or too large to be followed are called as the model does
        error.param = error.param or param
        raise
    return matcher


def _grammar(form: Form | None, tools: Tools | None, calls: CallFormat | None) -> Grammar | None:
    """Return what an answer may be: of the form, or calls, or either; None where it may be anything."""
    if tools is None or calls is None:
        return read_form(form) if form else None
    if tools.required:
        return {ROOT: Rule(CALLS), **calls_grammar(calls, tools)}
    if form:
        said = scoped(read_form(form), "said", shared=ANY_JSON)
        return {ROOT: choice([Rule(CALLS), Rule(f"said {ROOT}")]), **said, **calls_grammar(calls, tools)}
    if calls.mark:
        return {ROOT: Rule(FREE), **free_or_calls(calls), **calls_grammar(calls, tools)}
    return None


def read_form(form: Form) -> Grammar:
    """Return a form as a grammar. Raises RequestError for what it cannot be."""
    if len(form.source) > LONGEST:
        raise RequestError(f"{form.param} may have up to {LONGEST:,} characters.", param=form.param)
    match form.kind:
        case "object":
            return {ROOT: OBJECT, **ANY_JSON}
        case "schema":
            return schema_grammar(json.loads(form.source), form.param)
        case "gbnf":
            return read_gbnf(form.source, form.param)
        case "pattern":
            return {ROOT: pattern(form.source, form.param)}
        case "choice":
            return {ROOT: texts(json.loads(form.source))}


def after_thoughts(thoughts: ThoughtFormat, within: bool) -> Grammar:
    """Return the rule START: what is thought and then the answer; `within` a thought, or where one may be opened."""
    answer = row(maybe(thoughts.lead), Rule(ROOT)) if thoughts.lead else Rule(ROOT)
    closed = row(Rule(f"{thoughts.close} 0"), Repeat(among(" ", "\n"), 0, 4), answer)
    begin: Expression = closed if within else choice([row(thoughts.open, closed), answer])
    return {START: begin, **until(thoughts.close)}


def _said(begun: str, thinking: Thinking) -> str:
    """Return what an answer's beginning says, less what was thought before."""
    if thinking.within:
        return ""
    return begun.rpartition(thinking.form.close)[2].lstrip()
