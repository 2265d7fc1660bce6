"""What answers must look like, by the fields that ask for it, as grammars."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from llama.call_format import CallFormat
from llama.errors import RequestError
from llama.grammar.calls import CALLS, OBJECT, calls_as_values, calls_grammar, free_or_calls
from llama.grammar.gbnf import gbnf_grammar
from llama.grammar.lark import START, Grammar, characters, literal, regex
from llama.grammar.matcher import Followers, Matcher
from llama.grammar.schema import any_of, checked
from llama.thought_format import ThoughtFormat
from llama.thoughts import Thinking
from llama.types import Chat, Form, Prompt, Tools

if TYPE_CHECKING:
    from llama.model import LlamaModel

LONGEST = 100_000  # characters of a grammar or a schema
ANSWER = "answer"
CALL_BEGINS = "{"  # where it is a JSON object and nothing else


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
        # A model that may call or not is left its control tokens, but for the calls themselves.
        followers = partial(model.followers, model.shown(calls, thinking.form))
        found = _grammar(form, chat.tools if chat else None, calls, followers)
        if found is None:
            return None
        grammar, free = found
        if thoughts:
            grammar = after_thoughts(thoughts, grammar, thinking.within)
        said = _said(begun["content"], thinking) if begun else ""
        return Matcher(grammar, followers(), said, free)
    except RecursionError:
        raise RequestError(f"{param} is nested too deeply.", param=param) from None
    except RequestError as error:
        if form is None and chat and chat.tools and chat.tools.lenient:
            return None  # tools too many or too large to be followed are called as the model does
        error.param = error.param or param
        raise


def _grammar(
    form: Form | None, tools: Tools | None, calls: CallFormat | None, followers: Callable[[], Followers]
) -> tuple[Grammar, bool] | None:
    """Return what an answer may be: of the form, or calls, or either; and whether it is free up to a call.

    None where it may be anything.
    """
    if tools is None or calls is None:
        return (read_form(form), False) if form else None
    if tools.required:
        return calls_grammar(calls, tools) | Grammar({START: CALLS}), False
    if form:
        return _form_or_calls(form, tools, calls, followers), False
    if calls.mark:
        return free_or_calls(calls, calls_grammar(calls, tools)), True
    return None


def _form_or_calls(form: Form, tools: Tools, calls: CallFormat, followers: Callable[[], Followers]) -> Grammar:
    """Return what is of a form or calls. Raises RequestError where one cannot be told from the other in time."""
    if calls.mark:
        said = read_form(form)
        return calls_grammar(calls, tools) | said | Grammar({ANSWER: said.rules[START], START: f"{CALLS} | {ANSWER}"})
    if (values := calls_as_values(calls, tools)) is None:
        why = "which this model calls without a mark or JSON: set tool_choice"
        raise RequestError(f"{form.param} is not supported beside tools, {why}.", param=form.param)
    if form.kind in ("object", "schema"):
        return Grammar({START: "@either"}, {"either": any_of([_schema(form), *values])})
    said = read_form(form)
    if _may_begin(said, CALL_BEGINS, followers()):
        why = f"an answer of it may begin with {CALL_BEGINS}, as this model's calls do: set tool_choice"
        raise RequestError(f"{form.param} is not supported beside tools: {why}.", param=form.param)
    return said | Grammar({ANSWER: said.rules[START], START: f"@{CALLS} | {ANSWER}"}, {CALLS: any_of(values)})


def _may_begin(grammar: Grammar, text: str, followers: Followers) -> bool:
    """Return whether what is of a grammar may begin with a text."""
    try:
        Matcher(grammar, followers, text)
    except RequestError:
        return False
    return True


def _schema(form: Form) -> Mapping[str, object]:
    return OBJECT if form.kind == "object" else checked(json.loads(form.source), form.param)


def read_form(form: Form) -> Grammar:
    """Return a form as a grammar. Raises RequestError for what it cannot be."""
    if len(form.source) > LONGEST:
        raise RequestError(f"{form.param} may have up to {LONGEST:,} characters.", param=form.param)
    match form.kind:
        case "object" | "schema":
            return Grammar({START: "@said"}, {"said": _schema(form)})
        case "gbnf":
            return gbnf_grammar(form.source, form.param)
        case "pattern":
            return Grammar({START: regex(form.source)})
        case "choice":
            return Grammar({START: "ONE", "ONE": " | ".join(map(literal, json.loads(form.source)))})


def after_thoughts(thoughts: ThoughtFormat, grammar: Grammar, within: bool) -> Grammar:
    """Return what is thought and then the answer; `within` a thought, or where one may be opened."""
    answer = f"({characters(thoughts.lead)})? {ANSWER}" if thoughts.lead else ANSWER
    closed = f"closed {answer}"
    rules = {
        ANSWER: grammar.rules[START],
        "closed": 'thought (" " | "\\n"){0,4}',
        "thought[lazy]": f"/(?s:.)*/ {literal(thoughts.close)}",
        START: closed if within else f"{characters(thoughts.open)} {closed} | {answer}",
    }
    return grammar | Grammar(rules)


def _said(begun: str, thinking: Thinking) -> str:
    """Return what an answer's beginning says, less what was thought before."""
    if thinking.within:
        return ""
    return begun.rpartition(thinking.form.close)[2].lstrip()
