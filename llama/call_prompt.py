"""Tools, calls and their results in a conversation, as the model's chat template takes them, or in words."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import cast

from llama.call_format import CallFormat, plain
from llama.call_notation import written_call
from llama.calls import linked
from llama.types import Message, Tools

Turn = dict[str, object]  # as templates take it

INTRODUCTION = """You may call functions to help with what is asked. They are, one a line as JSON:
<tools>
{tools}
</tools>
To call one, write its name and its arguments as in this example, and nothing after it:
{example}"""


def with_tools(messages: Sequence[Message], tools: Tools | None, form: CallFormat) -> list[Turn]:
    """Return a conversation for a template, which is given the tools themselves where it lists them.

    Args:
        messages: the conversation.
        tools: that may be called, if any.
        form: how the template writes calls.
    """
    turns = [cast(Turn, message) for message in messages]
    turns = list(_in_words(turns, form)) if form.form is None else list(linked(turns, form.form))
    if tools is None or form.listed:
        return turns
    schemas = "\n".join(json.dumps(schema, ensure_ascii=False) for schema in tools.schemas)
    text = INTRODUCTION.format(tools=schemas, example=form.example)
    if turns and turns[0]["role"] == "system":
        return [{**turns[0], "content": f"{turns[0]['content']}\n\n{text}"}, *turns[1:]]
    if form.takes_system or not turns:
        return [{"role": "system", "content": text}, *turns]
    return [{**turns[0], "content": f"{text}\n\n{turns[0]['content']}"}, *turns[1:]]


def _in_words(turns: Sequence[Turn], form: CallFormat) -> Iterator[Turn]:
    """Yield turns with calls as the assistant's words, and results side by side as the user's.

    Models with a notation of their own read results as such, in turns of the tools'.
    """
    for role, group in groupby(turns, lambda turn: turn["role"]):
        if role == "tool" and not form.notation:
            results = "\n".join(f"<tool_response>\n{turn['content']}\n</tool_response>" for turn in group)
            yield {"role": "user", "content": results}
        else:
            yield from (_spoken(turn, form) for turn in group)


def _spoken(turn: Turn, form: CallFormat) -> Turn:
    calls: list[Mapping[str, Mapping[str, object]]] = json.loads(cast(str, turn.get("tool_calls", "[]")))
    if not calls:
        return turn
    content, functions = cast(str, turn["content"]), [call["function"] for call in calls]
    if form.notation:
        called = [written_call(form.notation, str(each["name"]), cast(Turn, each["arguments"])) for each in functions]
        marked = form.mark + plain(form.head) + plain(form.joint or "").join(called) + plain(form.tail)
        return {"role": turn["role"], "content": content + marked}
    objects = [{key: function[key] for key in ("name", "arguments")} for function in functions]
    written = [f"<tool_call>\n{json.dumps(each, ensure_ascii=False)}\n</tool_call>" for each in objects]
    return {"role": turn["role"], "content": "\n".join(filter(None, [content, *written]))}
