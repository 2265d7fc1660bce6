"""The shapes that instruction data comes in, and how a row of each becomes chat messages.

FORMATS, at the end, has a row for each: settings, detection, errors and the table in docs/models.md go by it. It stands
here since every check of a configuration names them, and so imports nothing that takes time.

Each row is told by itself, by what is filled in it. An assistant's turn may have its reasoning in a field of its own,
which then opens its content in `<think>` tags; and `weight: 0` or `train: false`, by which it is shown and not learnt.
A content may be a list of parts, if all of them are text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from pipeline.core import tool_calls
from pipeline.core.messages import (
    Columns,
    Message,
    Messages,
    UnusableRowError,
    as_list,
    as_text,
    is_unicode,
    joined,
    plain_name,
    said,
    says_something,
)
from pipeline.core.tool_calls import (
    ANSWERS_COLUMN,
    CALLING_ROLES,
    CALLS_KEYS,
    IN_SYSTEM,
    QUERY_COLUMN,
    RESULT_KEYS,
    TOOLS_COLUMNS,
    calls_of,
    spoken_calls,
    tools_of,
    with_calls,
)
from pipeline.core.transcripts import CHAT_COLUMN, TEXT_COLUMN, asked_turns, from_transcript, is_transcript


@dataclass(frozen=True)
class Format:
    """A shape of rows."""

    name: str  # that `data.format` takes
    keys: str  # what a row has, in a few words
    fits: Callable[[Columns], bool]  # whether a row has this shape; the first format that says so is the row's
    read: Callable[[Columns], Messages]  # its messages; raises UnusableRowError
    is_chat: bool = True  # whether these are turns, and not a text that is learnt whole


TURN_COLUMNS = ("messages", "conversations", "conversation")
CONTEXT_COLUMNS = ("input", "context")  # Alpaca's name and Dolly's
ANSWER_COLUMNS = ("output", "response")
SYSTEM_COLUMNS = ("system", "system_prompt")
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
WEIGHT_KEYS = ("weight", "train")  # of a row or a turn
TURN_WEIGHT_KEYS = (*WEIGHT_KEYS, "loss", "loss_weight")  # of a turn; in a row these may be figures
TURN_KEYS = frozenset(("role", "content", "from", "value", *TURN_WEIGHT_KEYS, *REASONING_KEYS))
HISTORY_COLUMN = "history"  # earlier turns: pairs of question and answer
PAIR_COLUMNS = (
    ("question", "answer"),
    ("question", "response"),
    ("prompt", "response"),
    ("prompt", "completion"),
    ("prompt", "answer"),
    ("prompt", "output"),
    ("query", "response"),
    ("query", "answer"),
    ("problem", "solution"),
    ("input", "output"),
    ("input", "target"),
    ("inputs_pretokenized", "targets_pretokenized"),  # P3's, whose inputs and targets are tokens
    ("inputs", "targets"),
    ("human", "assistant"),
    ("user", "assistant"),
)
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    **dict.fromkeys(CALLING_ROLES, "assistant"),  # a text, or calls where the row has tools
    "tool": "tool",
    "tool_response": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}
# All keys that a row or a turn may have, for `data.columns`.
KNOWN_KEYS = tuple(
    dict.fromkeys(
        [
            *TURN_COLUMNS,
            *("role", "content", "from", "value"),
            "instruction",
            *CONTEXT_COLUMNS,
            *ANSWER_COLUMNS,
            *(name for pair in PAIR_COLUMNS for name in pair),
            TEXT_COLUMN,
            *SYSTEM_COLUMNS,
            HISTORY_COLUMN,
            *REASONING_KEYS,
            *("weight", "train", "chosen", "rejected", "label"),
            *TOOLS_COLUMNS,
            *CALLS_KEYS,
            *RESULT_KEYS,
            *(QUERY_COLUMN, ANSWERS_COLUMN, CHAT_COLUMN),
        ]
    )
)
# The columns of a question's choices, one each.
LETTERED = tuple(f"{before}{letter}" for before in ("", "option_", "option", "op", "choice_") for letter in "abcd")
# Without these a row means something else, so one that no format reads is an error unless `data.ignore` names it.
CHANGES_MEANING = frozenset(
    (
        *("weight", "train", "mask", "loss", "loss_weight", "train_detail", "training_detail", "output_with_loss"),
        *("label", "labels", "kto_tag", "correct", "score", "scores", "rating", "ratings", "quality"),
        *("helpfulness", "correctness", "reward", "overall_score"),
        *("chosen", "rejected", "preference", "preferred", "corrected"),
        *("rejected_response", "chosen_response", "rejected_messages", "chosen_messages"),
        *SYSTEM_COLUMNS,
        *(HISTORY_COLUMN, "input", "context", "choices", "options", "answer_choices"),
        *("article", "passage", "paragraph", "story", "document", "documents", "support"),  # what a question is about
        *LETTERED,
        *TOOLS_COLUMNS,
        *CALLS_KEYS,
        *("tool_choice", "function"),
        *REASONING_KEYS,
        *("cot", "complex_cot", "chain_of_thought", "rationale", "thought", "thoughts", "reasoning_trace"),
        *("image", "images", "audio", "audios", "video", "videos"),
    )
)
MAY_FOLLOW = {
    "start": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),  # several calls, several results
    "system": (),  # only ever first, which is checked apart
}

NO_KNOWN_FORMAT = "no known format"
NOT_TO_BE_LEARNT = "not to be learnt"
HISTORY_NO_PAIRS = "history is no list of pairs"
NOT_AN_OBJECT = "not an object"
CELLS_DO_NOT_MATCH = "more cells than the header"
MISSING_FIELD = "missing field"
NOT_UNICODE = "text is not valid Unicode"
EMPTY_MESSAGE = "empty message"
LONGEST = 10_000_000  # characters of a conversation: tokens of more take tens of GiB, and no model reads so far
TOO_LONG = "longer than 10 million characters"
UNKNOWN_ROLE = "unknown role; data.roles maps roles"
REASONING_OUTSIDE = "reasoning outside an assistant's turn"
WEIGHT_BETWEEN = "weight is neither 0 nor 1"
NOTHING_LEARNT = "no assistant turn that is learnt"
NO_ASSISTANT_TURN = "no assistant turn"
ROLES_DO_NOT_ALTERNATE = "roles do not alternate"


class Converted(NamedTuple):
    """What a row became, and its keys and its turns' that had no part in it."""

    messages: Messages
    unused: frozenset[str]
    reordered: Sequence[str] = ()  # what was done with turns


def detect(row: object) -> str | None:
    """Return the name of the format of a row, by what is filled in it or else by its keys; None where none is known."""
    if not isinstance(row, dict):
        return None
    columns = _columns(row)
    return _shape(_filled(columns)) or _shape(columns)


def describe() -> str:
    """Return all formats with what they are known by, in one line."""
    return ", ".join(f"{form.name} ({form.keys})" for form in FORMATS.values())


@dataclass(frozen=True)
class Turns:
    """What becomes of turns in an order that a conversation does not have."""

    opening: str = "drop"  # of the assistant; or keep it as context
    repeated: str = "reject"  # two of a role in a row; or merge them


TURNS = Turns()
OPENING_DROPPED, OPENING_KEPT, MERGED = "opening dropped", "opening kept, not learnt", "repeated turns merged"
UNANSWERED = "closing turns unanswered, not read"  # they are behind all that is learnt


def ordered(messages: Messages, turns: Turns) -> tuple[Messages, list[str]]:
    """Return messages as the settings of turns want them, and what was done."""
    done: list[str] = []
    place = next((place for place, message in enumerate(messages) if message["role"] != "system"), 0)
    end = next((end for end in range(place, len(messages)) if messages[end]["role"] != "assistant"), len(messages))
    if end > place and turns.opening == "drop":
        messages, done = [*messages[:place], *messages[end:]], [OPENING_DROPPED]
    elif end > place:
        opening: Messages = [{**message, "weight": 0} for message in messages[place:end]]
        messages, done = [*messages[:place], *opening, *messages[end:]], [OPENING_KEPT]
    if turns.repeated == "merge" and len(merged := _merged(messages)) < len(messages):
        return merged, [*done, MERGED]
    return messages, done


def _merged(messages: Messages) -> Messages:
    """Return messages with those of one role and weight in a row as one; tools may each have their own."""
    merged: Messages = []
    for message in messages:
        before = merged[-1] if merged else None
        if (
            before
            and before["role"] == message["role"] in ("user", "assistant")
            and _weight(before) == _weight(message)
            and not before.get("tool_calls")
        ):
            contents = (before["content"], message["content"])
            merged[-1] = {**before, **message, "content": "\n\n".join(filter(None, contents))}
        else:
            merged.append(message)
    return merged


def _weight(message: Message) -> int:
    return message.get("weight", 1)


class Noting(dict[str, object]):
    """A row that notes which of its columns were read."""

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> object:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: object = None) -> object:
        """Return a column, and note that it was read."""
        self.read.add(key)
        return super().get(key, default)

    def unused(self) -> frozenset[str]:
        """Return the keys that say something and were not read, of the row and of the turns in what was read."""
        keys = {key for key, value in self.items() if key not in self.read and _is_content(value)}
        for column in (self.read & self.keys()).difference(TOOLS_COLUMNS, SYSTEM_COLUMNS, (ANSWERS_COLUMN,)):
            value = super().__getitem__(column)
            for turn in value if isinstance(value, list) else (turns_of(self) or () if column in TURN_COLUMNS else ()):
                if isinstance(turn, dict) and (others := turn.keys() - TURN_KEYS):
                    keys.update(key for key in others - _own_keys(turn) if _is_content(turn[key]))
        return frozenset(keys)


def _own_keys(turn: dict[str, object]) -> frozenset[str]:
    """Return the keys that say something in a turn of its kind: of tools, by who speaks, or an exchange's."""
    if _is_exchange(turn):
        read = {*_pair(columns := _columns(turn)), _first(columns, SYSTEM_COLUMNS)}
        return frozenset(key for key in turn if plain_name(key) in read)
    by_role = {"assistant": CALLS_KEYS, "tool": RESULT_KEYS, "system": TOOLS_COLUMNS}
    return frozenset(by_role.get(_role(turn) or "", ()))


def _role(turn: Columns) -> str | None:
    return ROLES.get(role_name(turn.get("role", turn.get("from"))))


def role_name(name: object) -> str:
    """Return a role's name as ROLES has it."""
    return plain_name(name).replace("-", "_").replace(" ", "_")


def convert(row: object, name: str) -> Messages:
    """Return the messages of one row in the format `name`.

    Raises:
        UnusableRowError: with the reason.
    """
    return read_row(row, name).messages


def read_row(row: object, name: str, turns: Turns = TURNS) -> Converted:
    """Return the messages of one row in the format `name`, and its keys that had no part in them.

    An empty system message is left out; texts are otherwise kept as they are.

    Raises:
        UnusableRowError: with the reason.
    """
    if not isinstance(row, dict):
        raise UnusableRowError(NOT_AN_OBJECT)
    if None in row:  # where csv.DictReader puts the cells that no column has a name for
        raise UnusableRowError(CELLS_DO_NOT_MATCH)
    columns = Noting(_read_by(FORMATS[name], _columns(row)))
    if not is_learnt(columns):
        raise UnusableRowError(NOT_TO_BE_LEARNT)
    messages, reordered = read_columns(columns, name, turns)
    return Converted(messages, columns.unused(), reordered)


def read_columns(columns: Columns, name: str, turns: Turns = TURNS) -> tuple[Messages, list[str]]:
    """Return the messages of a row's columns in the format `name`, and what was done with their turns.

    Raises:
        UnusableRowError: with the reason.
    """
    messages = FORMATS[name].read(columns)
    if not FORMATS[name].is_chat:
        _check_texts(messages)
        return messages, []
    messages, reordered = ordered(with_system(columns, messages), turns)
    check(messages)
    if messages[-1]["role"] != "assistant":
        reordered = [*reordered, UNANSWERED]
    return with_tools(columns, messages, reordered)


def with_tools(columns: Columns, messages: Messages, reordered: list[str]) -> tuple[Messages, list[str]]:
    """Put a row's tools first; what was done with turns says where the system message has them already.

    Raises:
        UnusableRowError: they cannot be read.
    """
    tools = _tools(columns)
    _check_texts(tools)
    if tools and messages[0]["role"] == "system" and tool_calls.stand_in(tools[0], messages[0]["content"]):
        return messages, [*reordered, IN_SYSTEM]
    return [*tools, *messages], reordered


def check(messages: Messages) -> None:
    """Check the texts and the turns of a conversation.

    Raises:
        UnusableRowError: with the reason.
    """
    _check_texts(messages)
    _check_turns(messages)


def keys_of(rows: Sequence[object]) -> list[str]:
    """Return the keys that `rows` use, in order of appearance."""
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row if key is not None))


def _columns(row: dict[object, object] | Columns) -> Columns:
    """Return a row with its keys as the tables above write them: CSV headers come capitalised and padded."""
    return {plain_name(key): value for key, value in row.items()}


def filled(row: dict[Any, object]) -> Columns:
    """Return the columns of a row that say something."""
    return _filled(_columns(row))


def _filled(columns: Columns) -> Columns:
    """Return the columns that say something: not null, NaN, or empty."""
    return {key: value for key, value in columns.items() if says_something(value)}


def _is_content(value: object) -> bool:
    """Return whether a value says something, also where a CSV cell has it as JSON."""
    return says_something(value) and value not in ("[]", "{}", "null")


def _read_by(shape: Format, columns: Columns) -> Columns:
    """Return what a format reads of a row: what is filled in it, if that is enough."""
    filled = _filled(columns)
    return filled if shape.fits(filled) else columns


def _shape(columns: Columns) -> str | None:
    return next((form.name for form in FORMATS.values() if form.fits(columns)), None)


def _turn_keys(columns: Columns) -> set[str]:
    """Return the keys of the first turn; none where a row has no turns."""
    turns = turns_of(columns)
    return set(turns[0]) if turns and isinstance(turns[0], dict) else set()


def turns_of(columns: Columns) -> list[object] | None:
    """Return the list of turns, also where a CSV cell holds it as JSON."""
    return as_list(columns.get(_first(columns, TURN_COLUMNS) or ""))


def _first(columns: Columns, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _from_turns(columns: Columns, role_key: str, text_key: str) -> Messages:
    turns = turns_of(columns)
    if turns is None:
        raise UnusableRowError(MISSING_FIELD)
    return [*_history(columns), *_messages(turns, role_key, text_key, _tools(columns))]


def _tools(columns: Columns) -> Messages:
    """Return the message with a row's tools, which may stand in its system turn; none where it has no tools."""
    turns = turns_of(columns) or []
    first = turns[0] if turns and isinstance(turns[0], dict) else {}
    return tools_of(columns) or (tools_of(first) if _role(first) == "system" else [])


def messages_of(turns: Sequence[object]) -> Messages:
    """Return turns as messages, by the keys of the first one.

    Raises:
        UnusableRowError: with the reason.
    """
    shared = bool(turns) and isinstance(turns[0], dict) and "from" in turns[0]
    return _messages(turns, *(("from", "value") if shared else ("role", "content")))


def _messages(turns: Sequence[object], role_key: str, text_key: str, tools: Sequence[Message] = ()) -> Messages:
    messages: Messages = []
    for turn in tool_calls.unfolded(turns):
        if not isinstance(turn, dict):
            raise UnusableRowError(NOT_AN_OBJECT)
        if role_key not in turn or (text_key not in turn and not any(turn.get(key) for key in CALLS_KEYS)):
            raise UnusableRowError(MISSING_FIELD)
        messages.append(_message(turn, role_name(turn[role_key]), turn.get(text_key), list(tools)))
    return messages


def _message(turn: dict[str, object], name: str, content: object, tools: Messages) -> Message:
    """Return a turn as a message, by what its role is called."""
    role = ROLES.get(name)
    if role is None:
        raise UnusableRowError(UNKNOWN_ROLE)
    calls = calls_of(turn, role)
    if role != "assistant" and any(says_something(turn.get(key)) for key in REASONING_KEYS):
        raise UnusableRowError(REASONING_OUTSIDE)
    if role == "tool":
        return tool_calls.result_of(turn, content)
    text = joined(content)
    if name in CALLING_ROLES and tools and not calls:
        calls = spoken_calls(text)
        text = "" if calls else text
    message: Message = {"role": role, "content": _reasoned(turn, text, bool(calls)) if role == "assistant" else text}
    if not is_learnt(turn, TURN_WEIGHT_KEYS) and role == "assistant":
        message["weight"] = 0
    return with_calls(message, calls, tools)


def _reasoned(turn: dict[str, object], content: str, calls: bool) -> str:
    """Return what an assistant's turn says, its reasoning before it in tags."""
    reasoning = next((text for key in REASONING_KEYS if (text := as_text(turn.get(key)))), "")
    says_nothing = not content.strip() and not calls
    if not reasoning.strip() or says_nothing or content.lstrip().startswith("<think>"):
        return content
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{content}"


def _are_exchanges(turns: Sequence[object] | None) -> bool:
    """Return whether these are texts of user and assistant in turn, or both of an exchange side by side."""
    turns = turns or ()
    return bool(turns) and (all(isinstance(turn, str) for turn in turns) or all(map(_is_exchange, turns)))


def _is_exchange(turn: object) -> bool:
    return isinstance(turn, dict) and not turn.keys() & {"role", "from"} and _pair(_columns(turn)) != (None, None)


def _from_exchanges(columns: Columns) -> Messages:
    turns = turns_of(columns)
    if not turns or not _are_exchanges(turns):
        raise UnusableRowError(MISSING_FIELD)
    return [*_history(columns), *(message for at, turn in enumerate(turns) for message in _exchange(turn, at))]


def _exchange(turn: object, at: int) -> Messages:
    """Return the messages of a text that is the `at`th of a conversation, or of a question with its answer."""
    if not isinstance(turn, dict):
        return [{"role": ("user", "assistant")[at % 2], "content": as_text(turn)}]
    columns = _columns(turn)
    messages = with_system(columns, _from_pair(columns, *_pair(columns), ()))
    if not is_learnt(columns, TURN_WEIGHT_KEYS):
        messages[-1]["weight"] = 0
    return messages


def _history(columns: Columns) -> Messages:
    """Return the turns of a `history` column: pairs, or turns."""
    value = columns.get(HISTORY_COLUMN)
    if not says_something(value):
        return []
    earlier = as_list(value)
    if earlier is None:
        raise UnusableRowError(HISTORY_NO_PAIRS)
    return [message for item in earlier for message in _earlier(item)]


def _earlier(item: object) -> Messages:
    if isinstance(item, dict):
        pair = _pair(_columns(item))
        return messages_of([item]) if pair == (None, None) else _from_pair(_columns(item), *pair, ())
    if not isinstance(item, list | tuple) or len(item) != 2:
        raise UnusableRowError(HISTORY_NO_PAIRS)
    return [{"role": "user", "content": as_text(item[0])}, {"role": "assistant", "content": as_text(item[1])}]


def is_learnt(turn: Columns, names: Sequence[str] = WEIGHT_KEYS) -> bool:
    """Return whether a row is learnt, or a turn where it is the assistant's."""
    weights = [turn.get(name) for name in names]
    if any(weight not in (None, 0, 1) for weight in weights):  # in Python, False is 0
        raise UnusableRowError(WEIGHT_BETWEEN)
    return 0 not in weights


def _from_text(columns: Columns) -> Messages:
    if TEXT_COLUMN not in columns:
        raise UnusableRowError(MISSING_FIELD)
    return [{"role": "text", "content": as_text(columns[TEXT_COLUMN])}]


def _pair(columns: Columns) -> tuple[str | None, str | None]:
    """Return the first of PAIR_COLUMNS that a row has both columns of."""
    return next((pair for pair in PAIR_COLUMNS if columns.keys() >= set(pair)), (None, None))


def _from_pair(columns: Columns, question: str | None, answer: str | None, context: Sequence[str]) -> Messages:
    """Ask and answer; the first `context` column found follows the question after a blank line."""
    if question is None or answer is None or question not in columns or answer not in columns:
        raise UnusableRowError(MISSING_FIELD)
    return [*asked(columns, question, context), *_thought_out(columns, answer_of(columns[answer]))]


def _thought_out(columns: Columns, answers: Messages) -> Messages:
    """Return the one answer of a row after its reasoning in a column beside it; a word there, such as `on`, is none."""
    key = _first(filled := _filled(columns), REASONING_KEYS)
    thought = filled[key] if key else None
    if key is None or len(answers) != 1 or not isinstance(thought, str) or len(thought.split()) < 2:
        return answers  # and the column is one that had no part
    return [{**answers[0], "content": _reasoned({key: columns[key]}, answers[0]["content"], calls=False)}]


def asked(columns: Columns, question: str, context: Sequence[str]) -> Messages:
    """Return what a row asks, after its history; the first `context` column found follows after a blank line.

    Raises:
        UnusableRowError: with the reason.
    """
    before, turns = _prompt(columns[question])
    more = as_text(columns.get(_first(columns, context) or ""))
    if turns and more.strip() and turns[-1]["content"].strip():
        turns[-1]["content"] += f"\n\n{more}"
    return [*before, *_history(columns), *turns]


def _prompt(value: object) -> tuple[Messages, Messages]:
    """Return what stands before the conversation, a system message, and the turns that are not learnt of a prompt."""
    if isinstance(value, list | dict):
        messages = messages_of(value if isinstance(value, list) else [value])
    else:
        messages = asked_turns(text := as_text(value)) or [{"role": "user", "content": text}]
    for message in messages:
        if message["role"] == "assistant":  # who gives a prompt and an answer wants the answer learnt
            message["weight"] = 0
    system = [message for message in messages if message["role"] == "system"]
    return system, [message for message in messages if message["role"] != "system"]


def answer_of(value: object) -> Messages:
    """Return an answer as messages: a text, a message, or a list of messages.

    Raises:
        UnusableRowError: with the reason.
    """
    if isinstance(value, list | dict):
        return messages_of(value if isinstance(value, list) else [value])
    return [{"role": "assistant", "content": as_text(value)}]


def with_system(columns: Columns, messages: Messages) -> Messages:
    """Put a column with a system prompt first where the turns have none, and leave empty ones out."""
    told = next((message["content"] for message in messages if message["role"] == "system"), None)
    if told is None or told in [columns[name] for name in SYSTEM_COLUMNS if name in columns]:
        column = _system_text(columns.get(_first(columns, SYSTEM_COLUMNS) or ""))
        messages = [{"role": "system", "content": column}, *messages] if told is None else messages
    return [message for message in messages if message["role"] != "system" or message["content"].strip()]


def _system_text(value: object) -> str:
    """Return a system prompt, which may be a text, parts of one, or a message."""
    return joined(value["content"] if isinstance(value, dict) and "content" in value else value)


def _check_turns(messages: Messages) -> None:
    """Check for an optional system message, then user and assistant in turn; tools may stand in a user's place."""
    messages = [message for message in messages if message["role"] != tool_calls.TOOLS]
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise UnusableRowError(NO_ASSISTANT_TURN)
    if not any(message.get("weight", 1) for message in messages if message["role"] == "assistant"):
        raise UnusableRowError(NOTHING_LEARNT)
    if roles[0] == "system":
        roles, messages = roles[1:], messages[1:]
    if roles[:1] == ["assistant"] and not _weight(messages[0]):  # an opening that is kept
        roles = roles[1:]
    if any(after not in MAY_FOLLOW[before] for before, after in pairwise(["start", *roles])):
        raise UnusableRowError(ROLES_DO_NOT_ALTERNATE)


def _check_texts(messages: Messages) -> None:
    for message in messages:
        if not said(message).strip():
            raise UnusableRowError(EMPTY_MESSAGE)
        if not all(is_unicode(value) for value in message.values() if isinstance(value, str)):
            raise UnusableRowError(NOT_UNICODE)
    if sum(len(said(message)) for message in messages) > LONGEST:
        raise UnusableRowError(TOO_LONG)


# In the order in which a row is held against them, and of two with as many rows the first is taken.
FORMATS = {
    form.name: form
    for form in (
        Format(
            "messages",
            "messages: [{role, content}]",
            fits=lambda columns: {"role", "from"} & _turn_keys(columns) == {"role"},
            read=lambda columns: _from_turns(columns, "role", "content"),
        ),
        Format(
            "sharegpt",
            "conversations: [{from, value}]",
            fits=lambda columns: "from" in _turn_keys(columns),
            read=lambda columns: _from_turns(columns, "from", "value"),
        ),
        Format(
            "exchanges",
            "conversation: [{input, output}], or texts in turn",
            fits=lambda columns: _are_exchanges(turns_of(columns)),
            read=_from_exchanges,
        ),
        Format(
            "alpaca",
            "instruction, input, output",
            fits=lambda columns: "instruction" in columns and _first(columns, ANSWER_COLUMNS) is not None,
            read=lambda columns: _from_pair(columns, "instruction", _first(columns, ANSWER_COLUMNS), CONTEXT_COLUMNS),
        ),
        Format(
            "calls",
            "query, tools, answers",
            fits=lambda columns: {QUERY_COLUMN, ANSWERS_COLUMN, "tools"} <= columns.keys(),
            read=tool_calls.asked_and_called,
        ),
        Format(
            "transcript",
            "chat: USER: ... ASSISTANT: ..., or text in a template's marks",
            fits=is_transcript,
            read=from_transcript,
        ),
        Format(
            "pairs",
            "question/answer, prompt/response, prompt/completion, ...",
            fits=lambda columns: _pair(columns) != (None, None),
            read=lambda columns: _from_pair(columns, *_pair(columns), ("context",)),
        ),
        Format(
            "text",
            "text alone, or data.format=text",
            fits=lambda columns: list(columns) == [TEXT_COLUMN],  # beside others it may be what a label is for
            read=_from_text,
            is_chat=False,
        ),
    )
}
