"""What the requests of other APIs bring: texts, or parts of several types; tools, calls and their results."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from llama.errors import RequestError
from serve.http.answers import Json
from serve.http.fields import CALL_HARMLESS, CALL_REFUSED, TOOL_HARMLESS, TOOL_REFUSED, Unasked, check_fields

TOOL_KEYS = ("name", "description", "strict")  # of a tool, beside its schema


def read_parts(
    content: object, kinds: Mapping[str, str], where: str, harmless: frozenset[str], refused: Mapping[str, Unasked]
) -> list[tuple[str, str]]:
    """Return the kind and the text of each part. Raises RequestError for what is none.

    Args:
        content: a list of parts.
        kinds: those that are read, and the key of each one's text.
        where: the field that it is.
        harmless: keys of a part that change nothing.
        refused: those that would, with the values with which they do not.
    """
    read = []
    for param, kind, part in parts_of(content, kinds, where):
        read.append((kind, text_of(part, kinds[kind], param)))
        check_fields(beside(part, "type", kinds[kind]), harmless, refused, f"{param}.")
    return read


def parts_of(content: object, kinds: Collection[str], where: str) -> Iterator[tuple[str, str, Json]]:
    """Yield where each part is, its kind and itself. Raises RequestError for what is none of the kinds."""
    if not isinstance(content, list):
        raise RequestError(f"{where}: a text, or a list of parts, is required.", "invalid_type", where)
    for place, part in enumerate(content):
        param = f"{where}[{place}]"
        kind = str(part.get("type")) if isinstance(part, dict) else "nothing"
        if kind not in kinds:
            raise unsupported(param, kind, kinds)
        yield param, kind, part


def text_of(part: Mapping[str, object], key: str, where: str) -> str:
    """Return what must be a text. Raises RequestError where it is none."""
    text = part.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{where}.{key}: a text is required.", "invalid_type", f"{where}.{key}")
    return text


def beside(part: Mapping[str, object], *known: str) -> Json:
    """Return what else a part has."""
    return {name: value for name, value in part.items() if name not in known}


def unsupported(param: str, kind: str, known: Collection[str]) -> RequestError:
    """Return what to raise for a kind that is not known."""
    text = f"{param}: {kind[:50]!a} is not supported, only {', '.join(known)}."
    return RequestError(text, "unsupported_parameter", param)


def response_format(form: Mapping[str, object] | None, **usual: str) -> Json | None:
    """Return what an answer must look like as a chat's response_format has it; `usual` is what a schema may lack."""
    if form is None or form.get("type") != "json_schema":
        return None if form is None else dict(form)
    return {"type": "json_schema", "json_schema": {**usual, **beside(form, "type")}}


def tools_of(given: Sequence[Json] | None, kind: str, parameters: str) -> tuple[list[Json] | None, dict[str, str]]:
    """Return tools as a chat has them, and the names of their fields for those of the chat. Raises RequestError.

    Args:
        given: the tools, if any.
        kind: the type that they are of; all others are for the API's own servers.
        parameters: the key of a schema.
    """
    if given is None:
        return None, {}
    tools: list[Json] = []
    names: dict[str, str] = {}
    for place, tool in enumerate(given):
        where = f"tools[{place}]"
        if tool.get("type") not in (kind, None):
            raise unsupported(f"{where}.type", str(tool["type"]), (kind,))
        check_fields(beside(tool, "type", *TOOL_KEYS, parameters), TOOL_HARMLESS, TOOL_REFUSED, f"{where}.")
        function = {key: tool.get(key) for key in TOOL_KEYS} | {"parameters": tool.get(parameters)}
        tools.append({"type": "function", "function": function})
        names |= {f"{where}.function": where, f"{where}.function.parameters": f"{where}.{parameters}"}
    return tools, names


@dataclass
class ChatTurn:
    """One message of a chat."""

    role: str
    said: str
    thought: str = ""
    calls: list[Json] = field(default_factory=list)
    call_id: str | None = None  # whose result it is

    def message(self) -> Json:
        """Return it as a chat has it."""
        beside: Json = {"reasoning_content": self.thought, "tool_calls": self.calls}
        given = {name: value for name, value in beside.items() if value}
        return {"role": self.role, "content": self.said, **given, "tool_call_id": self.call_id}


class Turns:
    """A conversation as a chat has it, put together from what other APIs have as parts of their own."""

    def __init__(self, joins: bool) -> None:
        """Begin one; `joins` what one role says at several times into one turn."""
        self.names: dict[str, str] = {}  # the other API's for the fields of the messages
        self._joins = joins
        self._turns: list[ChatTurn] = []

    def say(self, role: str, said: str, where: str, thought: str = "") -> None:
        """Add what somebody says."""
        last = self._turns[-1] if self._turns else None
        if self._joins and last and last.role == role:
            last.said = "\n".join(filter(None, [last.said, said]))
            last.thought = "\n".join(filter(None, [last.thought, thought]))
        else:
            self._add(ChatTurn(role, said, thought), where)

    def call(self, part: Json, number: str, arguments: str, where: str) -> None:
        """Add a call to what the assistant has said last; the keys are those of its id and its arguments."""
        check_fields(beside(part, "type", "name", number, arguments), CALL_HARMLESS, CALL_REFUSED, f"{where}.")
        function = {"name": text_of(part, "name", where), "arguments": part.get(arguments)}
        if not self._turns or self._turns[-1].role != "assistant":
            self._add(ChatTurn("assistant", ""), where)
        calls = self._turns[-1].calls
        param = f"messages[{len(self._turns) - 1}].tool_calls[{len(calls)}]"
        self.names |= {param: where, f"{param}.function.arguments": f"{where}.{arguments}"}
        calls.append({"id": text_of(part, number, where), "type": "function", "function": function})

    def answer(self, part: Json, number: str, result: str, where: str) -> None:
        """Add the result of a call; `number` and `result` are the keys of the call's id and of the text."""
        check_fields(beside(part, "type", number, result), CALL_HARMLESS, CALL_REFUSED, f"{where}.")
        self._add(ChatTurn("tool", text_of(part, result, where), call_id=text_of(part, number, where)), where)

    def messages(self) -> list[Json]:
        """Return them."""
        return [turn.message() for turn in self._turns]

    def _add(self, turn: ChatTurn, where: str) -> None:
        self.names[f"messages[{len(self._turns)}]"] = where
        self._turns.append(turn)
