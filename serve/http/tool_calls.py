"""What an answer calls: whole, and piece by piece in a stream, as it is and as OpenAI's chats write it."""

import uuid
from dataclasses import dataclass

from llama.call_format import CallFormat
from llama.call_stream import Arguments, Called, Calls, Said
from llama.types import Tools

Json = dict[str, object]


@dataclass
class Call:
    """One call; its arguments grow, as JSON, while the answer comes."""

    number: str  # its id
    name: str
    arguments: str = ""


# What an answer goes on with: a call stands where it begins.
Told = Said | Call | Arguments


class ToolCalls:
    """The calls of one answer."""

    def __init__(self, of_old: bool = False) -> None:
        """Write them; `of_old` as the one `function_call` that there was before there were tools."""
        self._of_old = of_old
        self._calls: Calls | None = None
        self.calls: list[Call] = []
        self._untold: list[Told] = []
        self._numbered = 0  # of the calls, those that the deltas have begun

    def take(self, form: CallFormat, tools: Tools | None, text: str, last: bool) -> str:
        """Add what is said next, and perhaps `last`; return what of it is no call."""
        self._calls = self._calls or Calls(form, tools)
        said = ""
        for event in self._calls.take(text, last):
            match event:
                case Called(name=name):
                    self.calls.append(Call(f"call_{uuid.uuid4().hex[:24]}", name))
                    self._untold.append(self.calls[-1])
                case Said(text=more):
                    said += more
                    self._untold.append(event)
                case Arguments(text=more):
                    self.calls[-1].arguments += more
                    self._untold.append(event)
        return said

    def told(self) -> list[Told]:
        """Return what a stream has not been told yet, in the answer's order."""
        untold, self._untold = self._untold, []
        return untold

    def deltas(self) -> list[Json]:
        """Return the same, less what is said, as a chat's stream has it."""
        return [self._delta(each) for each in self.told() if not isinstance(each, Said)]

    def message(self) -> Json:
        """Return what a whole answer's message has of them."""
        functions = [{"name": call.name, "arguments": call.arguments} for call in self.calls]
        if not functions:
            return {}
        if self._of_old:
            return {"function_call": functions[0]}
        numbered = zip(self.calls, functions, strict=True)
        return {"tool_calls": [{"id": call.number, "type": "function", "function": each} for call, each in numbered]}

    def finish(self, finish: str | None) -> str | None:
        """Return why an answer ended: to call, where it called and was not cut."""
        if finish != "stop" or not self.calls:
            return finish
        return "function_call" if self._of_old else "tool_calls"

    def _delta(self, told: Call | Arguments) -> Json:
        function: Json
        if isinstance(told, Call):
            self._numbered += 1
            function, beside = {"name": told.name, "arguments": ""}, {"id": told.number, "type": "function"}
        else:
            function, beside = {"arguments": told.text}, {}
        if self._of_old:
            return {"function_call": function}
        return {"tool_calls": [{"index": self._numbered - 1, **beside, "function": function}]}
