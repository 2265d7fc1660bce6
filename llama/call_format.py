r"""How a model's chat template writes calls of tools, found by letting it write some.

    <tool_call>\n{"name": "find_sum", "arguments": {…}}\n</tool_call>      Hermes, Qwen, Granite 4
    {"name": "find_sum", "parameters": {…}}                               Llama 3
    [TOOL_CALLS][{"name": "find_sum", "arguments": {…}, "id": "…"}]       Mistral
    [TOOL_CALLS]find_sum[ARGS]{…}                                         Mistral since 2025
    <function=find_sum>{…}</function>                                     Functionary 3.1
    <tool_call>\n<function=find_sum>\n<parameter=x>\n5\n</parameter>…     Qwen3 Coder
    <tool_call>find_sum\n<arg_key>x</arg_key>\n<arg_value>5</arg_value>…  GLM
    <|tool_call>call:find_sum{x:<|"|>five<|"|>,y:6}<tool_call|>           Gemma 4
    <|tool_call_start|>[find_sum(x='five', y=6)]<|tool_call_end|>         LFM2

and so on: what stands before a name, between it and the arguments, between two calls and after the last is all that
has to be known, and around each argument where they are no JSON object. Models whose template writes no calls, or
arguments otherwise, are told of the tools in the system turn and call as Hermes does; LFM2's first templates write none
either, and its vocabulary tells.
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
from llama.marks import CLOSING, TAG, common_beginning

OTHER, ANSWER = "find_product", "\ue000"  # another tool's name; an answer that no template writes of itself
OTHER_KEY, OTHER_VALUE, NUMBER = "to_these", "7 and 8", 56  # another argument, and one that is no text
SHORT_IDS, MADE_IDS = ("a1b2c3d4e", "b5c6d7e8f"), ("call_1", "call_2")  # of two calls, as forms have them
ARGUMENTS = re.compile(rf'\{{\s*"{KEY}"\s*:\s*"{VALUE}"\s*\}}')
LONGEST_TAIL = 200  # characters: more is a turn of somebody else's
# A thought that is begun and ended at once: its tags have one name.
THOUGHT = re.compile(r"^<\|?(?:START_)?(\w+)\|?>\s*<[|/]?(?:END_)?\1\|?>\s*")
FIRST_TAG = re.compile(rf"(?:{CLOSING})*(?P<mark>{TAG})(?=.)", re.DOTALL)  # of several, that closes nothing
# What begins a call's JSON before its name.
JSON_HEAD = re.compile(r'\s*\[?\s*\{(?:\s*"\w+"\s*:\s*"?\w*"?\s*,)*\s*"\w+"\s*:\s*"$')


@dataclass(frozen=True)
class ParameterFormat:
    """What a model writes around each argument, where they are no JSON object; patterns, as regular expressions."""

    before: str  # the name
    between: str  # it and the value
    after: str  # the value
    unquoted: str  # in the place of `between` before what is no text
    typed: tuple[tuple[str, str], ...] = ()  # in that of `unquoted`, by JSON's types, where the form tells more of them

    def before_value(self, of: str) -> str:
        """Return what stands between the name and a value of one of JSON's types."""
        return self.between if of == "string" else dict(self.typed).get(of, self.unquoted)


@dataclass(frozen=True)
class Notation:
    """How a model writes arguments as one object, and objects and lists in it, where that is no JSON."""

    open: str  # what stands before the arguments
    equals: str  # between a name and its value
    comma: str  # between two
    close: str  # after the last
    quote: str  # around a text; in quotes of Python's there is what Python has in them, in others all as it stands
    is_sorted: bool = False  # whether they come in the order of their names, and not in that of the schema

    @property
    def is_python(self) -> bool:
        """Whether values are written as in Python."""
        return self.quote in ('"', "'")


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
    notation: Notation | None = None  # of the arguments, where they are an object that is no JSON


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
LFM_2 = CallFormat(
    lead="",
    mark="<|tool_call_start|>",
    head="\\[",
    middle="",
    joint=", ",
    tail="\\]<\\|tool_call_end\\|>",
    example=f'<|tool_call_start|>[{NAME}({KEY}="{VALUE}")]<|tool_call_end|>',
    in_json=False,
    form=None,
    listed=False,
    notation=Notation("(", "=", ", ", ")", '"'),
)


def find_format(
    render: Render, refusal: type[Exception], ends: Sequence[str], is_token: Callable[[str], bool]
) -> CallFormat:
    """Return how a model writes calls: as its template does, or else by a mark that its vocabulary has; HERMES if none.

    Args:
        render: writes messages, the first of them perhaps the tools, with the prompt for an answer or without.
        refusal: what it raises where the template refuses.
        ends: the texts of tokens that end a turn.
        is_token: whether a text is one token.
    """
    found = None
    with suppress(refusal):
        if (form := form_of_calls(render, refusal)) is not None:
            found = _probed(render, refusal, form, ends)
    if found is None and is_token(LFM_2.mark):
        found = replace(LFM_2, listed=_lists(render, refusal))
    return replace(found or HERMES, takes_system=_takes_system(render, refusal))


def _lists(render: Render, refusal: type[Exception]) -> bool:
    with suppress(refusal):
        return NAME in render(ASKED, True)
    return False


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
    in_object = _as_json(one, start) or _in_notation(calling, one, start)
    if (written := in_object or _by_parameters(calling, one, start)) is None:
        return None
    at, begin, end, parameters, notation = written
    tail = _before_end(one[end:], answered, ends)
    if parameters and not tail.strip():
        return None  # it does not show where the last one ends
    head, middle = THOUGHT.sub("", one[start:at]), one[at + len(NAME) : begin]
    if len(tail) > LONGEST_TAIL:
        return None
    mark = _mark(head, ids, bool(parameters or notation))
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
        notation=notation,
    )


class _Written(NamedTuple):
    """Where a call stands that a template has written."""

    name: int
    begin: int  # of the arguments
    end: int
    parameters: ParameterFormat | None = None
    notation: Notation | None = None


def _as_json(one: str, start: int) -> _Written | None:
    found = ARGUMENTS.search(one, start)
    at = one.rfind(NAME, start, found.start()) if found else -1
    return _Written(at, found.start(), found.end()) if found and at >= 0 else None


def _in_notation(calling: Callable[..., str], one: str, start: int) -> _Written | None:
    """Return where a call stands whose arguments are an object, but no JSON; None where they are not."""
    at = one.find(NAME, start)
    name_end, key = at + len(NAME), one.find(KEY, at)
    opened, number = one[name_end:key], calling({KEY: NUMBER}, NAME)
    closed = {"{": "}", "(": ")"}.get(opened)
    if at < start or closed is None or not calling({}, NAME).startswith(opened + closed, name_end):
        return None
    equals = number[key + len(KEY) :].partition(str(NUMBER))[0]
    quote = one[key + len(KEY) + len(equals) :].partition(VALUE)[0]
    argument = KEY + equals + quote + VALUE + quote
    two = calling({OTHER_KEY: OTHER_VALUE, KEY: VALUE}, NAME)
    is_sorted = two.find(KEY, name_end) < two.find(OTHER_KEY, name_end)
    # Both arguments are of one length.
    comma = two[key + len(argument) :].partition(OTHER_KEY if is_sorted else KEY)[0]
    if not quote or not one.startswith(argument + closed, key) or comma.strip() != ",":
        return None
    end = key + len(argument + closed)
    return _Written(at, name_end, end, notation=Notation(opened, equals, comma, closed, quote, is_sorted))


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
    typed = _typed(calling, key + len(KEY), between, unquoted) if between != unquoted else ()
    parameters = ParameterFormat(_escaped(before), _escaped(between), _escaped(after), _escaped(unquoted), typed)
    return _Written(at, name_end + len(middle), value + len(VALUE) + len(after), parameters)


def _typed(calling: Callable[..., str], key_end: int, *known: str) -> tuple[tuple[str, str], ...]:
    """Return what stands before values of further types, as patterns, where that is none that is known."""
    ending = common_beginning(*(each[::-1] for each in known))[::-1]
    found = {}
    for of, value in {"boolean": True, "null": None, "array": [NUMBER], "object": {KEY: NUMBER}}.items():
        before, ends, _ = calling({KEY: value}, NAME)[key_end:].partition(ending)
        found[of] = before + ends
    return tuple((of, _escaped(before)) for of, before in found.items() if before not in known)


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
        return tag["mark"]
    mark = JSON_HEAD.sub("", head) if JSON_HEAD.search(head) else head.rstrip(' \n[{"')
    cut = min((at for number in ids if number and (at := mark.find(number)) >= 0), default=len(mark))
    return mark[:cut].strip()


def _pattern(text: str, ids: Sequence[str]) -> str:
    """Return a text as a pattern; ids, and numbers by which calls are counted, are any."""
    escaped = _escaped(text)
    for number in filter(None, ids):
        escaped = escaped.replace(_escaped(number), "[a-zA-Z0-9]{9}" if number in SHORT_IDS else "[a-zA-Z0-9_]{1,40}")
    return re.sub(r'(?<=[":])[0-2](?=["<])', "[0-9]{1,2}", escaped)


def _escaped(text: str) -> str:
    return re.sub(r"[\\^$.|?*+()\[\]{}]", r"\\\g<0>", text)


def plain(pattern: str) -> str:
    """Return the text that a pattern without choices stands for."""
    return re.sub(r"\\(.)", r"\1", pattern)


def first_tag(text: str) -> str:
    """Return the tag that a text, or a pattern of one, begins with; all of it where it is no tag."""
    return re.split(r"(?<=>)|\s", text.strip(), maxsplit=1)[0]
