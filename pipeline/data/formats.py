"""The shapes that instruction data comes in, and how a row of each becomes chat messages.

Five formats are known. `messages`: a list of turns with `role` and `content`. `sharegpt`: a list of turns with `from`
and `value`. `alpaca`: `instruction`, optional `input`, `output`. `pairs`: a question and its answer in two columns.
`text`: plain text, which becomes one message of the role `text`.

An assistant's turn may have its reasoning in a field of its own, which then opens its content in `<think>` tags; and
`weight: 0` or `train: false`, by which it is shown and not learnt.
"""

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

Messages = list[dict[str, Any]]  # role and content, and `weight` 0 where it is not learnt

FORMATS = ("messages", "sharegpt", "alpaca", "pairs", "text")
KNOWN_FORMATS = (
    "messages (messages: [{role, content}]), sharegpt (conversations: [{from, value}]), "
    "alpaca (instruction, input, output), pairs (question/answer, prompt/response, prompt/completion, ...), "
    "text (text alone, or data.format=text)"
)

TURN_COLUMNS = ("messages", "conversations", "conversation")
CONTEXT_COLUMNS = ("input", "context")  # Alpaca's name and Dolly's
ANSWER_COLUMNS = ("output", "response")
TEXT_COLUMN = "text"
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
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
MAY_FOLLOW = {
    "start": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),  # several calls, several results
    "system": (),  # only ever first, which is checked apart
}

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


class UnusableRowError(Exception):
    """A row that cannot be trained on; its only argument is one of the reasons above."""


def detect(rows: Sequence[Any]) -> str | None:
    """The format that most of `rows` have, or None where no row has a known one."""
    counts = Counter(shape for row in rows if isinstance(row, dict) if (shape := _shape(_columns(row))))
    return max(FORMATS, key=lambda name: counts[name]) if counts else None


def convert(row: Any, name: str) -> Messages:
    """The messages of one row in the format `name`.

    An empty system message is left out; texts are otherwise kept as they are.

    Raises:
        UnusableRowError: with the reason.
    """
    if not isinstance(row, dict):
        raise UnusableRowError(NOT_AN_OBJECT)
    if None in row:  # where csv.DictReader puts the cells that no column has a name for
        raise UnusableRowError(CELLS_DO_NOT_MATCH)
    columns = _columns(row)
    if name == "text":
        return _from_text(columns)
    if name in ("messages", "sharegpt"):
        messages = _from_turns(columns, *(("role", "content") if name == "messages" else ("from", "value")))
    elif name == "alpaca":
        messages = _from_pair(columns, "instruction", _first(columns, ANSWER_COLUMNS), CONTEXT_COLUMNS)
    else:
        question, answer = next((pair for pair in PAIR_COLUMNS if columns.keys() >= set(pair)), (None, None))
        messages = _from_pair(columns, question, answer, ("context",))
    messages = _with_system(columns, messages)
    _check(messages)
    return messages


def keys_of(rows: Sequence[Any]) -> list[str]:
    """The keys that `rows` use, in order of appearance."""
    return list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row if key is not None))


def _columns(row: dict[Any, Any]) -> dict[str, Any]:
    """The row with its keys as the tables above write them: CSV headers come capitalised and padded."""
    return {str(key).strip().lower(): value for key, value in row.items()}


def _shape(columns: dict[str, Any]) -> str | None:
    turns = _turns(columns)
    if turns and isinstance(turns[0], dict):
        if "from" in turns[0]:
            return "sharegpt"
        if "role" in turns[0]:
            return "messages"
    if "instruction" in columns and _first(columns, ANSWER_COLUMNS):
        return "alpaca"
    if any(columns.keys() >= set(pair) for pair in PAIR_COLUMNS):
        return "pairs"
    return "text" if list(columns) == [TEXT_COLUMN] else None  # beside others it may be what a label is for


def _turns(columns: dict[str, Any]) -> list[Any] | None:
    """The list of turns, also where a CSV cell holds it as JSON."""
    value = columns.get(_first(columns, TURN_COLUMNS) or "")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _first(columns: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _from_turns(columns: dict[str, Any], role_key: str, text_key: str) -> Messages:
    turns = _turns(columns)
    if turns is None:
        raise UnusableRowError(MISSING_FIELD)
    messages = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise UnusableRowError(NOT_AN_OBJECT)
        if turn.get("tool_calls") or turn.get("function_call"):
            raise UnusableRowError(TOOL_CALLS)
        if role_key not in turn or text_key not in turn:
            raise UnusableRowError(MISSING_FIELD)
        role = ROLES.get(str(turn[role_key]).strip().lower())
        if role is None:
            raise UnusableRowError(UNKNOWN_ROLE)
        messages.append({"role": role, "content": _content(turn, text_key, role), **_weight(turn, role)})
    return messages


def _content(turn: dict[str, Any], text_key: str, role: str) -> str:
    """What a turn says, an assistant's reasoning before it in tags."""
    content = _text(turn[text_key])
    reasoning = next((text for key in REASONING_KEYS if (text := _text(turn.get(key)))), "")
    if role != "assistant" or not reasoning.strip() or not content.strip() or content.lstrip().startswith("<think>"):
        return content
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{content}"


def _weight(turn: dict[str, Any], role: str) -> dict[str, int]:
    """`weight` 0 for an assistant's turn that is not learnt, and nothing for others."""
    weight, train = turn.get("weight"), turn.get("train")
    if weight not in (None, 0, 1) or train not in (None, 0, 1):  # in Python, False is 0
        raise UnusableRowError(WEIGHT_BETWEEN)
    return {"weight": 0} if role == "assistant" and 0 in (weight, train) else {}


def _from_text(columns: dict[str, Any]) -> Messages:
    if TEXT_COLUMN not in columns:
        raise UnusableRowError(MISSING_FIELD)
    messages = [{"role": "text", "content": _text(columns[TEXT_COLUMN])}]
    _check_texts(messages)
    return messages


def _from_pair(columns: dict[str, Any], question: str | None, answer: str | None, context: Sequence[str]) -> Messages:
    """A question and its answer; the first `context` column found follows the question after a blank line."""
    if question not in columns or answer not in columns:
        raise UnusableRowError(MISSING_FIELD)
    asked = _text(columns[question])
    more = _text(columns.get(_first(columns, context) or ""))
    user = f"{asked}\n\n{more}" if asked.strip() and more.strip() else asked
    return [{"role": "user", "content": user}, {"role": "assistant", "content": _text(columns[answer])}]


def _with_system(columns: dict[str, Any], messages: Messages) -> Messages:
    """Puts a `system` column first where the turns have no system message, and leaves empty ones out."""
    if not any(message["role"] == "system" for message in messages):
        messages = [{"role": "system", "content": _text(columns.get("system"))}, *messages]
    return [message for message in messages if message["role"] != "system" or message["content"].strip()]


def _text(value: Any) -> str:
    """A cell as text: nothing for null and NaN, the digits of a number."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # only NaN differs from itself
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise UnusableRowError(NOT_TEXT)


def _check(messages: Messages) -> None:
    """An optional system message, then user and assistant in turn; tool results may stand in a user's place."""
    _check_texts(messages)
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise UnusableRowError(NO_ASSISTANT_TURN)
    if not any(message.get("weight", 1) for message in messages if message["role"] == "assistant"):
        raise UnusableRowError(NOTHING_LEARNT)
    if roles[0] == "system":
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
    """False for half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
