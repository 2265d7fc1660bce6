"""The shapes that instruction data comes in, and how a row of each becomes chat messages.

FORMATS, at the end, has a row for each: settings, detection, errors and the table in docs/models.md go by it. It stands
here since every check of a configuration names them, and so imports nothing that takes time.

Each row is told by itself, by what is filled in it. An assistant's turn may have its reasoning in a field of its own,
which then opens its content in `<think>` tags; and `weight: 0` or `train: false`, by which it is shown and not learnt.
A content may be a list of parts, if all of them are text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, NotRequired, TypedDict


class Message(TypedDict):
    """A turn of a conversation, or the only one of a plain text."""

    role: str  # system, user, assistant, tool; text for a plain text
    content: str
    weight: NotRequired[int]  # 0 where it is not learnt


Messages = list[Message]
Columns = Mapping[str, object]  # a row by names in lower case


@dataclass(frozen=True)
class Format:
    """A shape of rows."""

    name: str  # that `data.format` takes
    keys: str  # what a row has, in a few words
    fits: Callable[[Columns], bool]  # whether a row has this shape; the first format that says so is the row's
    read: Callable[[Columns], Messages]  # its messages; raises UnusableRowError
    is_chat: bool = True  # whether these are turns, and not a text that is learnt whole


NOT_TEXT_KEYS = ("image", "image_url", "images", "audio", "input_audio", "video", "file")  # of a part
TURN_COLUMNS = ("messages", "conversations", "conversation")
CONTEXT_COLUMNS = ("input", "context")  # Alpaca's name and Dolly's
ANSWER_COLUMNS = ("output", "response")
TEXT_COLUMN = "text"
SYSTEM_COLUMNS = ("system", "system_prompt")
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
TURN_KEYS = frozenset(("role", "content", "from", "value", "weight", "train", *REASONING_KEYS))
HISTORY_COLUMN = "history"  # earlier turns: pairs of question and answer
TEXT_PARTS = ("text", "input_text", "output_text")
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
)
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",  # ShareGPT's name for a call that the assistant wrote as text
    "tool": "tool",
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
        ]
    )
)
# Without these a row means something else, so one that no format reads is an error unless `data.ignore` names it.
CHANGES_MEANING = frozenset(
    (
        *("weight", "train", "mask", "loss", "loss_weight"),
        *("label", "labels", "kto_tag", "correct", "score", "scores", "rating", "ratings", "quality"),
        *("chosen", "rejected", "preference", "preferred"),
        *SYSTEM_COLUMNS,
        *(HISTORY_COLUMN, "input", "context", "choices", "options"),
        *("tools", "available_tools", "tool_choice", "tool_calls"),
        *("function", "functions", "function_call"),
        *REASONING_KEYS,
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
NOT_TEXT = "content is not text"
NOT_UNICODE = "text is not valid Unicode"
EMPTY_MESSAGE = "empty message"
UNKNOWN_ROLE = "unknown role"
TOOL_CALLS = "tool calls outside the text"
WEIGHT_BETWEEN = "weight is neither 0 nor 1"
NOTHING_LEARNT = "no assistant turn that is learnt"
NO_ASSISTANT_TURN = "no assistant turn"
ROLES_DO_NOT_ALTERNATE = "roles do not alternate"


class Converted(NamedTuple):
    """What a row became, and its keys and its turns' that had no part in it."""

    messages: Messages
    unused: frozenset[str]
    reordered: Sequence[str] = ()  # what was done with turns


class UnusableRowError(Exception):
    """A row that cannot be trained on; its only argument is one of the reasons above."""


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
        ):
            merged[-1] = {**before, "content": f"{before['content']}\n\n{message['content']}"}
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
        for column in self.read & self.keys():
            value = super().__getitem__(column)
            for turn in value if isinstance(value, list) else (turns_of(self) or () if column in TURN_COLUMNS else ()):
                if isinstance(turn, dict) and (others := turn.keys() - TURN_KEYS):
                    keys.update(key for key in others if _is_content(turn[key]))
        return frozenset(keys)


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
    return messages, reordered


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


def _columns(row: dict[object, object]) -> Columns:
    """Return a row with its keys as the tables above write them: CSV headers come capitalised and padded."""
    return {plain_name(key): value for key, value in row.items()}


def plain_name(name: object) -> str:
    """Return the name of a key or a role as it is compared: without case and the space around it."""
    return str(name).strip().lower()


def filled(row: dict[Any, object]) -> Columns:
    """Return the columns of a row that say something."""
    return _filled(_columns(row))


def _filled(columns: Columns) -> Columns:
    """Return the columns that say something: not null, NaN, or empty."""
    return {key: value for key, value in columns.items() if _says_something(value)}


def _says_something(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value == value and value != [] and value != {}  # only NaN differs from itself


def _is_content(value: object) -> bool:
    """Return whether a value says something, also where a CSV cell has it as JSON."""
    return _says_something(value) and value not in ("[]", "{}", "null")


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
    return _as_list(columns.get(_first(columns, TURN_COLUMNS) or ""))


def _as_list(value: object) -> list[object] | None:
    """Return a list, also one that is written as JSON; None for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _first(columns: Columns, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _from_turns(columns: Columns, role_key: str, text_key: str) -> Messages:
    turns = turns_of(columns)
    if turns is None:
        raise UnusableRowError(MISSING_FIELD)
    return [*_history(columns), *_messages(turns, role_key, text_key)]


def messages_of(turns: Sequence[object]) -> Messages:
    """Return turns as messages, by the keys of the first one.

    Raises:
        UnusableRowError: with the reason.
    """
    shared = bool(turns) and isinstance(turns[0], dict) and "from" in turns[0]
    return _messages(turns, *(("from", "value") if shared else ("role", "content")))


def _messages(turns: Sequence[object], role_key: str, text_key: str) -> Messages:
    messages: Messages = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise UnusableRowError(NOT_AN_OBJECT)
        if turn.get("tool_calls") or turn.get("function_call"):
            raise UnusableRowError(TOOL_CALLS)
        if role_key not in turn or text_key not in turn:
            raise UnusableRowError(MISSING_FIELD)
        role = ROLES.get(plain_name(turn[role_key]))
        if role is None:
            raise UnusableRowError(UNKNOWN_ROLE)
        message: Message = {"role": role, "content": _content(turn, text_key, role)}
        if not is_learnt(turn) and role == "assistant":
            message["weight"] = 0
        messages.append(message)
    return messages


def _content(turn: dict[str, object], text_key: str, role: str) -> str:
    """Return what a turn says, an assistant's reasoning before it in tags."""
    content = _joined(turn[text_key])
    reasoning = next((text for key in REASONING_KEYS if (text := _text(turn.get(key)))), "")
    if role != "assistant" or not reasoning.strip() or not content.strip() or content.lstrip().startswith("<think>"):
        return content
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{content}"


def _joined(content: object) -> str:
    """Return a content as text, which may come as a list of parts."""
    if not isinstance(content, list):
        return _text(content)
    return "".join(part if isinstance(part, str) else _part(part) for part in content)


def _part(part: object) -> str:
    if (
        not isinstance(part, dict)
        or part.get("type", "text") not in TEXT_PARTS
        or not isinstance(part.get("text"), str)
    ):
        raise UnusableRowError(NOT_TEXT)
    if any(_says_something(value) for key, value in part.items() if key in NOT_TEXT_KEYS):
        raise UnusableRowError(NOT_TEXT)
    return str(part["text"])


def _history(columns: Columns) -> Messages:
    """Return the turns of a `history` column: pairs, or turns."""
    value = columns.get(HISTORY_COLUMN)
    if not _says_something(value):
        return []
    earlier = _as_list(value)
    if earlier is None:
        raise UnusableRowError(HISTORY_NO_PAIRS)
    return [message for item in earlier for message in _earlier(item)]


def _earlier(item: object) -> Messages:
    if isinstance(item, dict):
        pair = _pair(_columns(item))
        return messages_of([item]) if pair == (None, None) else _from_pair(_columns(item), *pair, ())
    if not isinstance(item, list | tuple) or len(item) != 2:
        raise UnusableRowError(HISTORY_NO_PAIRS)
    return [{"role": "user", "content": _text(item[0])}, {"role": "assistant", "content": _text(item[1])}]


def is_learnt(turn: Columns) -> bool:
    """Return whether a row is learnt, or a turn where it is the assistant's."""
    weight, train = turn.get("weight"), turn.get("train")
    if weight not in (None, 0, 1) or train not in (None, 0, 1):  # in Python, False is 0
        raise UnusableRowError(WEIGHT_BETWEEN)
    return 0 not in (weight, train)


def _from_text(columns: Columns) -> Messages:
    if TEXT_COLUMN not in columns:
        raise UnusableRowError(MISSING_FIELD)
    return [{"role": "text", "content": _text(columns[TEXT_COLUMN])}]


def _pair(columns: Columns) -> tuple[str | None, str | None]:
    """Return the first of PAIR_COLUMNS that a row has both columns of."""
    return next((pair for pair in PAIR_COLUMNS if columns.keys() >= set(pair)), (None, None))


def _from_pair(columns: Columns, question: str | None, answer: str | None, context: Sequence[str]) -> Messages:
    """Ask and answer; the first `context` column found follows the question after a blank line."""
    if question is None or answer is None or question not in columns or answer not in columns:
        raise UnusableRowError(MISSING_FIELD)
    return [*asked(columns, question, context), *answer_of(columns[answer])]


def asked(columns: Columns, question: str, context: Sequence[str]) -> Messages:
    """Return what a row asks, after its history; the first `context` column found follows after a blank line.

    Raises:
        UnusableRowError: with the reason.
    """
    before, turns = _prompt(columns[question])
    more = _text(columns.get(_first(columns, context) or ""))
    if turns and more.strip() and turns[-1]["content"].strip():
        turns[-1]["content"] += f"\n\n{more}"
    return [*before, *_history(columns), *turns]


def _prompt(value: object) -> tuple[Messages, Messages]:
    """Return what stands before the conversation, a system message, and the turns that are not learnt of a prompt."""
    if not isinstance(value, list | dict):
        return [], [{"role": "user", "content": _text(value)}]
    messages = messages_of(value if isinstance(value, list) else [value])
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
    return [{"role": "assistant", "content": _text(value)}]


def with_system(columns: Columns, messages: Messages) -> Messages:
    """Put a column with a system prompt first where the turns have none, and leave empty ones out."""
    said = next((message["content"] for message in messages if message["role"] == "system"), None)
    if said is None or said in [columns[name] for name in SYSTEM_COLUMNS if name in columns]:
        column = _text(columns.get(_first(columns, SYSTEM_COLUMNS) or ""))
        messages = [{"role": "system", "content": column}, *messages] if said is None else messages
    return [message for message in messages if message["role"] != "system" or message["content"].strip()]


def _text(value: object) -> str:
    """Return a cell as text: nothing for null and NaN, the digits of a number."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # only NaN differs from itself
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UnusableRowError(NOT_TEXT)


def _check_turns(messages: Messages) -> None:
    """Check for an optional system message, then user and assistant in turn; tools may stand in a user's place."""
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
        if not message["content"].strip():
            raise UnusableRowError(EMPTY_MESSAGE)
        if not is_unicode(message["content"]):
            raise UnusableRowError(NOT_UNICODE)


def is_unicode(text: str) -> bool:
    """Return False for half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
            "alpaca",
            "instruction, input, output",
            fits=lambda columns: "instruction" in columns and _first(columns, ANSWER_COLUMNS) is not None,
            read=lambda columns: _from_pair(columns, "instruction", _first(columns, ANSWER_COLUMNS), CONTEXT_COLUMNS),
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
