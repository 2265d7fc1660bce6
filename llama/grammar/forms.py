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
from llama.thoughts import CLOSE, OPEN, opens
from llama.types import Chat, Form, Prompt, Tools

if TYPE_CHECKING:
    from llama.model import LlamaModel

LONGEST = 100_000  # characters of a grammar or a schema
START = "thoughts and answer"


def start_matcher(
    form: Form | None, question: Prompt, model: "LlamaModel", within_thought: bool, calls: CallFormat | None = None
) -> Matcher | None:
    """Return what an answer is held to, after what may be thought before it; None where that is nothing.

    Of an answer that is gone on with the beginning counts.

    Args:
        form: what the answer must look like.
        question: what is answered; it may have tools.
        model: the one that answers.
        within_thought: whether the prompt ends within a thought.
        calls: how the model calls tools, where it may.

    Raises RequestError for a form that cannot be held to, and a beginning that is none of it.
    """
    chat = question if isinstance(question, Chat) else None
    begun = chat.messages[-1]["content"] if chat and chat.goes_on else None
    within = within_thought if begun is None else opens(begun)
    may_open = chat is not None and begun is None and model.thinks
    param = form.param if form else "tools"
    try:
        grammar = _grammar(form, chat.tools if chat else None, calls)
        if grammar is None:
            return None
        if within or may_open:
            grammar = {**grammar, **after_thoughts(within)}
        automaton = Automaton(grammar, START if within or may_open else ROOT)
        # A model that may call or not is left its control tokens, but for the calls themselves.
        matcher = Matcher(automaton, model.pieces(calls), free=FREE in grammar)
        said = "" if begun is None or within else begun.rpartition(CLOSE)[2].lstrip()
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


def after_thoughts(within: bool) -> Grammar:
    """Return the rule START: what is thought and then the answer; `within` a thought, or where one may be opened."""
    closed = row(Rule(f"{CLOSE} 0"), Repeat(among(" ", "\n"), 0, 4), Rule(ROOT))
    begin: Expression = closed if within else choice([row(OPEN, closed), Rule(ROOT)])
    return {START: begin, **until(CLOSE)}
