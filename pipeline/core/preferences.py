"""Rows that compare or judge answers: a chosen and a rejected one, or one with a verdict. They are no answers to learn.

Answers come as texts, as messages, or as lists of messages, which may begin with the prompt; a text may be a whole
conversation, each turn under `Human:` or `Assistant:`. Else the prompt stands in turns, or in a column of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict, final

from pipeline.core import formats
from pipeline.core.formats import TURNS, Columns, Message, Messages, Noting, Turns, UnusableRowError
from pipeline.core.transcripts import human_turns

PROMPT_COLUMNS = ("prompt", "question", "instruction", "query", "problem", "input")
LABEL_COLUMNS = ("label", "kto_tag")
# Other names of what is better and worse: OpenAI's and LLaMA-Factory's.
OTHER_NAMES = (("preferred_output", "non_preferred_output"), ("chosen_messages", "rejected_messages"))
MARKS = ("chosen", *(chosen for chosen, _ in OTHER_NAMES), *LABEL_COLUMNS)
VERDICTS = {"true": True, "1": True, "false": False, "0": False}

SAME_ANSWERS = "chosen and rejected are the same"
PART_EARLY = "chosen and rejected part before an answer"
JUDGED_BAD = "judged as a bad answer"


@final
class Preference(TypedDict):
    """A conversation, and what is better and worse to say next."""

    messages: Messages
    chosen: Messages
    rejected: Messages


@final
class Judgement(TypedDict):
    """A conversation, what was said next, and whether that is good."""

    messages: Messages
    completion: Messages
    label: bool


Comparison = Preference | Judgement


class Compared(NamedTuple):
    """What a row that compares or judges became, and its keys that had no part in it."""

    comparison: Comparison
    unused: frozenset[str]
    reordered: Sequence[str] = ()  # what was done with turns


def is_comparison(row: object) -> bool:
    """Return whether a row compares or judges answers."""
    if not isinstance(row, dict) or all(formats.plain_name(key) not in MARKS for key in row):  # as nearly all are
        return False
    columns = _under_our_names(row)
    return _is_preference(columns) or _is_judgement(columns)


def compare(row: dict[str, object], turns: Turns = TURNS) -> Compared:
    """Return what a row says of answers.

    Raises:
        UnusableRowError: with the reason.
    """
    columns = Noting(_under_our_names(row))
    if not formats.is_learnt(columns):
        raise UnusableRowError(formats.NOT_TO_BE_LEARNT)
    read = _preference if _is_preference(columns) else _judgement
    comparison, reordered = read(columns, turns)
    return Compared(comparison, columns.unused(), reordered)


def _under_our_names(row: dict[str, object]) -> Columns:
    """Return a row's columns by the names used here; OpenAI's pairs have conversation and tools in `input`."""
    columns = formats.filled(row)
    for names in OTHER_NAMES:
        if columns.keys() >= set(names) and not columns.keys() & {"chosen", "rejected"}:
            ours = dict(zip(names, ("chosen", "rejected"), strict=True))
            columns = {ours.get(name, name): value for name, value in columns.items()}
    inner = columns.get("input")
    if not isinstance(inner, dict) or "messages" not in inner or inner.keys() & columns.keys():
        return columns
    return formats.filled({**{name: value for name, value in columns.items() if name != "input"}, **inner})


def answered(comparison: Comparison) -> Messages:
    """Return the conversation with the answer that is good.

    Raises:
        UnusableRowError: there is none.
    """
    if not (messages := good_answer(comparison)):
        raise UnusableRowError(JUDGED_BAD)
    return messages


def good_answer(comparison: Comparison) -> Messages:
    """Return the conversation with the answer that is good, or nothing."""
    return next((messages for messages, good in conversations(comparison) if good), [])


def conversations(comparison: Comparison) -> list[tuple[Messages, bool]]:
    """Return the conversation with each of the answers, the better first, and whether that is good."""
    context = _context(comparison["messages"])
    return [([*context, *answer], good) for answer, good in _answers(comparison)]


def _context(prompt: Messages) -> Messages:
    return [_shown(message) if message["role"] == "assistant" else message for message in prompt]


def _shown(message: Message) -> Message:
    shown: Message = {**message}
    shown["weight"] = 0
    return shown


def kind_of(comparison: Comparison) -> str:
    """Return what a comparison is: pair, good or bad."""
    if "label" not in comparison:
        return "pair"
    return "good" if comparison["label"] else "bad"


def told(comparison: Comparison) -> Messages:
    """Return all that is said as one conversation, by which a comparison is known; what is bad has no weight."""
    answers = _answers(comparison)
    spoken = [message if good else _shown(message) for answer, good in answers for message in answer]
    return [*comparison["messages"], *spoken]


def changed(comparison: Comparison, change: Callable[[Messages], Messages]) -> Comparison:
    """Return a comparison of which each part is changed.

    Raises:
        UnusableRowError: chosen and rejected are then the same.
    """
    messages = change(comparison["messages"])
    if "label" in comparison:
        return {**comparison, "messages": messages, "completion": change(comparison["completion"])}
    chosen, rejected = change(comparison["chosen"]), change(comparison["rejected"])
    if chosen == rejected:
        raise UnusableRowError(SAME_ANSWERS)
    return {"messages": messages, "chosen": chosen, "rejected": rejected}


def _answers(comparison: Comparison) -> list[tuple[Messages, bool]]:
    if "label" in comparison:
        return [(comparison["completion"], comparison["label"])]
    return [(comparison["chosen"], True), (comparison["rejected"], False)]


def _is_preference(columns: Columns) -> bool:
    return {"chosen", "rejected"} <= columns.keys()


def _is_judgement(columns: Columns) -> bool:
    has_answer = formats.detect(dict(columns)) is not None
    return has_answer and any(_verdict(columns[name]) is not None for name in LABEL_COLUMNS if name in columns)


def _verdict(value: object) -> bool | None:
    """Return what a label says: true or false, 1 or 0, also as texts."""
    return VERDICTS.get(formats.plain_name(int(value) if value in (0, 1) else value))


def _preference(columns: Columns, turns: Turns) -> tuple[Preference, list[str]]:
    chosen, rejected = _spoken(columns, "chosen"), _spoken(columns, "rejected")
    shared = _shared_prompt(chosen, rejected)
    prompt, reordered = formats.ordered(_with_system(columns, shared) if shared else _prompt(columns), turns)
    chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    if chosen == rejected:
        raise UnusableRowError(SAME_ANSWERS)
    if any(answer[:1] and answer[0]["role"] != "assistant" for answer in (chosen, rejected)):
        raise UnusableRowError(PART_EARLY)
    for answer in (chosen, rejected):
        formats.check([*prompt, *answer])
    prompt, reordered = formats.with_tools(columns, prompt, reordered)
    return {"messages": _plain(prompt), "chosen": chosen, "rejected": rejected}, reordered


def _spoken(columns: Columns, name: str) -> Messages:
    """Return an answer, or the whole conversation that a text without a prompt beside it is."""
    value = columns[name]
    if isinstance(value, str) and not any(prompt in columns for prompt in (*PROMPT_COLUMNS, *formats.TURN_COLUMNS)):
        return human_turns(value) or formats.answer_of(value)
    return formats.answer_of(value)


def _shared_prompt(chosen: Messages, rejected: Messages) -> Messages:
    """Return the messages that both begin with, up to the answer, where they are whole conversations."""
    if not chosen or chosen[0]["role"] == "assistant":
        return []
    count = 0
    while count < min(len(chosen), len(rejected)) - 1 and chosen[count] == rejected[count]:
        count += 1
    return chosen[:count]


def _judgement(columns: Columns, turns: Turns) -> tuple[Judgement, list[str]]:
    name = next(name for name in LABEL_COLUMNS if name in columns and _verdict(columns[name]) is not None)
    messages, reordered = formats.read_columns(columns, str(formats.detect(dict(columns))), turns)
    if messages[-1]["role"] != "assistant":
        raise UnusableRowError(formats.NO_ASSISTANT_TURN)
    judgement: Judgement = {
        "messages": _plain(messages[:-1]),
        "completion": _plain(messages[-1:]),
        "label": bool(_verdict(columns[name])),
    }
    return judgement, reordered


def _prompt(columns: Columns) -> Messages:
    """Return what the answers follow."""
    if (turns := formats.turns_of(columns)) is not None:
        return _with_system(columns, formats.messages_of(turns))
    column = next((name for name in PROMPT_COLUMNS if name in columns), None)
    if column is None:
        raise UnusableRowError(formats.MISSING_FIELD)
    contexts = [name for name in formats.CONTEXT_COLUMNS if name != column]
    asked = formats.asked(columns, column, contexts)
    return _with_system(columns, asked)


def _with_system(columns: Columns, messages: Sequence[Message]) -> Messages:
    return _plain(formats.with_system(columns, list(messages)))


def _plain(messages: Messages) -> Messages:
    """Return messages without weights: nothing of a prompt is learnt."""
    return [_weightless(message) for message in messages]


def _weightless(message: Message) -> Message:
    weightless: Message = {**message}
    weightless.pop("weight", None)
    return weightless
