"""What answers must look like, by the fields that ask for it, as grammars."""

import json
from typing import TYPE_CHECKING

from llama.errors import RequestError
from llama.grammar.automaton import Automaton
from llama.grammar.expressions import (
    EMPTY,
    ROOT,
    Chars,
    Choice,
    Expression,
    Grammar,
    Repeat,
    Rule,
    among,
    choice,
    others,
    row,
    texts,
)
from llama.grammar.gbnf import read_gbnf
from llama.grammar.json_text import ANY_JSON, OBJECT
from llama.grammar.matcher import Matcher
from llama.grammar.patterns import pattern
from llama.grammar.schema import schema_grammar
from llama.thoughts import CLOSE, OPEN, opens
from llama.types import Chat, Form, Prompt

if TYPE_CHECKING:
    from llama.model import LlamaModel

LONGEST = 100_000  # characters of a grammar or a schema
START = "thoughts and answer"


def start_matcher(form: Form, question: Prompt, model: "LlamaModel", within_thought: bool) -> Matcher:
    """Return what an answer is held to: the form, after what may be thought before it.

    Of an answer that is gone on with the beginning counts.

    Args:
        form: what the answer must look like.
        question: what is answered.
        model: the one that answers.
        within_thought: whether the prompt ends within a thought.

    Raises RequestError for a form that cannot be held to, and a beginning that is none of it.
    """
    chat = question if isinstance(question, Chat) else None
    begun = chat.messages[-1]["content"] if chat and chat.goes_on else None
    within = within_thought if begun is None else opens(begun)
    may_open = chat is not None and begun is None and model.thinks
    try:
        grammar = read_form(form)
        if within or may_open:
            grammar = {**grammar, **after_thoughts(within)}
        automaton = Automaton(grammar, START if within or may_open else ROOT)
        matcher = Matcher(automaton, model.pieces)
        said = "" if begun is None or within else begun.rpartition(CLOSE)[2].lstrip()
        if not matcher.take(said.encode(errors="replace")):
            raise RequestError("The assistant's turn that is to be gone on with is no beginning of such an answer.")
    except RecursionError:
        raise RequestError(f"{form.param} is nested too deeply.", param=form.param) from None
    except RequestError as error:
        error.param = error.param or form.param
        raise
    return matcher


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


def until(mark: str) -> Grammar:
    """Return rules of which the first, `mark 0`, is any text up to and with a mark (Knuth, Morris and Pratt 1977)."""

    def after(matched: int, char: str) -> int:
        text = mark[:matched] + char
        return next(length for length in range(len(text), -1, -1) if text.endswith(mark[:length]))

    rules: dict[str, Expression] = {f"{mark} {len(mark)}": EMPTY}
    for matched in range(len(mark)):
        ways: list[Expression] = [
            row(char, Rule(f"{mark} {after(matched, char)}")) for char in sorted(set(mark)) if after(matched, char)
        ]
        rest = [(ord(char), ord(char)) for char in set(mark) if after(matched, char)]
        rules[f"{mark} {matched}"] = Choice((*ways, row(Chars(others(rest)), Rule(f"{mark} 0"))))
    return rules
