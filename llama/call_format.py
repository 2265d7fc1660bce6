r"""How a model's chat template writes calls of tools, found by letting it write some.

    <tool_call>\n{"name": "find_sum", "arguments": {…}}\n</tool_call>      Hermes, Qwen, Granite 4
    {"name": "find_sum", "parameters": {…}}                               Llama 3
    [TOOL_CALLS][{"name": "find_sum", "arguments": {…}, "id": "…"}]       Mistral
    [TOOL_CALLS]find_sum[ARGS]{…}                                         Mistral since 2025
    <function=find_sum>{…}</function>                                     Functionary 3.1
    <tool_call>\n<function=find_sum>\n<parameter=x>\n5\n</parameter>…     Qwen3 Coder
    <tool_call>find_sum\n<arg_key>x</arg_key>\n<arg_value>5</arg_value>…  GLM

and so on: what stands before a name, between it and the arguments, between two calls and after the last is all that
has to be known, and around each argument where they are no JSON object. Models whose template writes no calls, or
arguments otherwise, are told of the tools in the system turn and call as Hermes does.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from llama.calls import (
    ASKED,
    KEY,
    NAME,
    QUESTION,
    VALUE,
    CallForm,
    Message,
    Render,
    called,
    form_of_calls,
)
from llama.marks import common_beginning

OTHER, ANSWER = "find_product", "\ue000"  # another tool's name; an answer that no template writes of itself
OTHER_KEY, OTHER_VALUE, NUMBER = "to_these", "7 and 8", 56  # another argument, and one that is no text
SHORT_IDS, MADE_IDS = ("a1b2c3d4e", "b5c6d7e8f"), ("call_1", "call_2")  # of two calls, as forms have them
ARGUMENTS = re.compile(rf'\{{\s*"{KEY}"\s*:\s*"{VALUE}"\s*\}}')
LONGEST_TAIL = 200  # characters: more is a turn of somebody else's
# A thought that is begun and ended at once: its tags have one name.
THOUGHT = re.compile(r"^<\|?(?:START_)?(\w+)\|?>\s*<[|/]?(?:END_)?\1\|?>\s*")
FIRST_TAG = re.compile(r"<[^<>\s]+>(?=.)", re.DOTALL)  # of several
# What begins a call's JSON before its name.
JSON_HEAD = re.compile(r'\s*\[?\s*\{(?:\s*"\w+"\s*:\s*"?\w*"?\s*,)*\s*"\w+"\s*:\s*"$')


@dataclass(frozen=True)
class ParameterFormat:
    """What a model writes around each argument, where they are no JSON object; patterns, as regular expressions."""

    before: str  # the name
    between: str  # it and the value
    after: str  # the value
    unquoted: str  # in the place of `between` before what is no text


@dataclass(frozen=True)
class CallFormat:
    """What a model writes around the names and the arguments of what it calls; patterns, as regular expressions."""

    lead: str  # before the mark, such as the end of a line
    mark: str  # a text that calls begin with; empty where there is none but JSON or the name
    head: str  # between it and the first name
    middle: str  # between a name and its arguments
    joint: str | None  # between the arguments of a call and the next one's name; None where there is one call at most
    tail: str  # after the last arguments
    example: str  # a call of NAME as it is written
    in_json: bool  # whether the name is in one object with the arguments
    form: CallForm | None  # in which the template takes calls; None: it takes none
    listed: bool  # whether the template writes what tools there are
    parameters: ParameterFormat | None = None  # None: the arguments are one JSON object
    takes_system: bool = True  # whether the template takes a system turn, in which they are else


HERMES = CallFormat(
    lead="",
    mark="<tool_call>",
    head='\n\\{"name": "',
    middle='", "arguments": ',
    joint='\\}\n</tool_call>\n<tool_call>\n\\{"name": "',
    tail="\\}\n</tool_call>",
    example=f'<tool_call>\n{{"name": "{NAME}", "arguments": {{"{KEY}": "{VALUE}"}}}}\n</tool_call>',
    in_json=True,
    form=None,
    listed=False,
)


def find_format(render: Render, refusal: type[Exception], ends: Sequence[str]) -> CallFormat:
    """Return how a template writes calls; HERMES where it does not, or with arguments that are no JSON.

    Args:
        render: writes messages, the first of them perhaps the tools, with the prompt for an answer or without.
        refusal: what it raises where the template refuses.
        ends: the texts of tokens that end a turn.
    """
    found = None
    with suppress(refusal):
        if (form := form_of_calls(render, refusal)) is not None:
            found = _probed(render, refusal, form, ends)
    return replace(found or HERMES, takes_system=_takes_system(render, refusal))


def _takes_system(render: Render, refusal: type[Exception]) -> bool:
    with suppress(refusal):
        return ANSWER in render([{"role": "system", "content": ANSWER}, QUESTION], True)
    return False


def _probed(render: Render, refusal: type[Exception], form: CallForm, ends: Sequence[str]) -> CallFormat | None:
    ids = {"given": ("", ""), "made": MADE_IDS, "short": SHORT_IDS}[form.ids]

    def calling(arguments: Mapping[str, object], *names: str) -> str:
        calls = [(name, arguments, number) for name, number in zip(names, ids, strict=False)]
        turn: Message = {"role": "assistant", "content": form.content, "tool_calls": called(form, calls)}
        return render([*ASKED, turn], False)

    answered, one = render([*ASKED, {"role": "assistant", "content": ANSWER}], False), calling({KEY: VALUE}, NAME)
    start = outside_tag(one, len(common_beginning(answered, one)))
    if (written := _as_json(one, start) or _by_parameters(calling, one, start)) is None:
        return None
    at, begin, end, parameters = written
    tail = _before_end(one[end:], answered, ends)
    if parameters and not tail.strip():
        return None  # it does not show where the last one ends
    head, middle = THOUGHT.sub("", one[start:at]), one[at + len(NAME) : begin]
    if len(tail) > LONGEST_TAIL:
        return None
    mark = _mark(head, ids, parameters is not None)
    lead, _, rest = head.partition(mark) if mark else ("", "", head)
    joint = None
    with suppress(refusal):
        joint = _joint(calling({KEY: VALUE}, NAME, OTHER), one[:end], middle, ids)
    return CallFormat(
        lead=_pattern(lead, ids),
        mark=mark,
        head=_pattern(rest, ids),
        middle=_pattern(middle, ids),
        joint=None if joint is None else _pattern(joint, ids),
        tail=_pattern(tail, ids),
        example=head + NAME + one[at + len(NAME) : end] + tail,
        in_json=bool(JSON_HEAD.search(head)),
        form=form,
        listed=NAME in render(ASKED, True),
        parameters=parameters,
    )


class _Written(NamedTuple):
    """Where a call stands that a template has written."""

    name: int
    begin: int  # of the arguments
    end: int
    parameters: ParameterFormat | None


def _as_json(one: str, start: int) -> _Written | None:
    found = ARGUMENTS.search(one, start)
    at = one.rfind(NAME, start, found.start()) if found else -1
    return _Written(at, found.start(), found.end(), None) if found and at >= 0 else None


def _by_parameters(calling: Callable[..., str], one: str, start: int) -> _Written | None:
    """Return where a call stands whose arguments are written one by one, in tags; None where they are not."""
    at = one.find(NAME, start)
    name_end = at + len(NAME)
    key, value = one.find(KEY, name_end), one.find(VALUE, name_end)
    if not start <= at < key < value:
        return None
    opened, between, rest = one[name_end:key], one[key + len(KEY) : value], one[value + len(VALUE) :]
    two, without = calling({KEY: VALUE, OTHER_KEY: OTHER_VALUE}, NAME), calling({}, NAME)
    middle = opened[: outside_tag(opened, len(common_beginning(opened, without[name_end:])))]
    before, again = opened[len(middle) :], two[value + len(VALUE) : two.find(OTHER_KEY)]
    after = again.removesuffix(before)
    in_tags = before.strip() and after.strip() and again.endswith(before) and rest.startswith(after)
    again_named = NAME in middle or KEY in after  # as where tags are named for what they are around
    if not in_tags or again_named or between.rstrip().endswith(('"', "'")):
        return None
    number = calling({KEY: NUMBER}, NAME)
    unquoted = number[key + len(KEY) : number.find(str(NUMBER), key)]
    parameters = ParameterFormat(*map(_escaped, (before, between, after, unquoted)))
    return _Written(at, name_end + len(middle), value + len(VALUE) + len(after), parameters)


def outside_tag(text: str, at: int) -> int:
    """Return a place, or where the tag begins that it is within."""
    opened = text.rfind("<", 0, at)
    return opened if opened > text.rfind(">", 0, at) else at


def _before_end(rest: str, answered: str, ends: Sequence[str]) -> str:
    """Return what follows a call up to the end of the turn: a token that is one, or what ends any answer."""
    places = [at for end in ends if end and (at := rest.find(end)) >= 0]
    if places or any(end and end in answered[answered.find(ANSWER) :] for end in ends):
        return rest[: min(places, default=len(rest))]
    common = common_beginning(rest[::-1], answered[::-1])
    return rest[: len(rest) - len(common)].rstrip()


def _joint(two: str, first: str, middle: str, ids: Sequence[str]) -> str | None:
    """Return what stands between two calls; None where the template writes them otherwise than one."""
    other = two.rfind(OTHER)
    if not two.startswith(first) or other < len(first) or KEY not in two[other:]:
        return None
    again = two[other + len(OTHER) :][: len(middle)]
    return two[len(first) : other] if _pattern(again, ids) == _pattern(middle, ids) else None


def _mark(head: str, ids: Sequence[str], in_tags: bool) -> str:
    if in_tags and (tag := FIRST_TAG.match(head.lstrip())):
        return tag[0]
    mark = JSON_HEAD.sub("", head) if JSON_HEAD.search(head) else head.rstrip(' \n[{"')
    cut = min((at for number in ids if number and (at := mark.find(number)) >= 0), default=len(mark))
    return mark[:cut].strip()


def _pattern(text: str, ids: Sequence[str]) -> str:
    """Return a text as a pattern; ids, and numbers by which calls are counted, are any."""
    escaped = _escaped(text)
    for number in filter(None, ids):
        escaped = escaped.replace(_escaped(number), "[a-zA-Z0-9]{9}" if number in SHORT_IDS else "[a-zA-Z0-9_]{1,40}")
    return re.sub(r'(?<=[":])[01](?=["<])', "[0-9]{1,2}", escaped)


def _escaped(text: str) -> str:
    return re.sub(r"[\\^$.|?*+()\[\]{}]", r"\\\g<0>", text)


def plain(pattern: str) -> str:
    """Return the text that a pattern without choices stands for."""
    return re.sub(r"\\(.)", r"\1", pattern)


def first_tag(text: str) -> str:
    """Return the tag that a text, or a pattern of one, begins with; all of it where it is no tag."""
    return re.split(r"(?<=>)|\s", text.strip(), maxsplit=1)[0]
