"""What an answer calls, as OpenAI writes it: whole, and piece by piece in a stream."""

import uuid

from llama.call_format import CallFormat
from llama.call_stream import Arguments, Called, Calls, Said

Json = dict[str, object]


class ToolCalls:
    """The calls of one answer."""

    def __init__(self, of_old: bool = False) -> None:
        """Write them; `of_old` as the one `function_call` that there was before there were tools."""
        self._of_old = of_old
        self._calls: Calls | None = None
        self._ids: list[str] = []
        self._names: list[str] = []
        self._arguments: list[list[str]] = []
        self._untold: list[Json] = []

    def take(self, form: CallFormat, parallel: bool, text: str, last: bool) -> str:
        """Add what is said next, and perhaps `last`; return what of it is no call."""
        self._calls = self._calls or Calls(form, parallel)
        said = []
        for event in self._calls.take(text, last):
            match event:
                case Said(text=more):
                    said.append(more)
                case Called(name=name):
                    self._begin(name)
                case Arguments(text=more):
                    self._arguments[-1].append(more)
                    self._tell({"arguments": more})
        return "".join(said)

    def deltas(self) -> list[Json]:
        """Return what a stream has not been told yet."""
        untold, self._untold = self._untold, []
        return untold

    def message(self) -> Json:
        """Return what a whole answer's message has of them."""
        calls = zip(self._names, map("".join, self._arguments), strict=True)
        functions = [{"name": name, "arguments": arguments} for name, arguments in calls]
        if not functions:
            return {}
        if self._of_old:
            return {"function_call": functions[0]}
        numbered = zip(self._ids, functions, strict=True)
        return {"tool_calls": [{"id": number, "type": "function", "function": each} for number, each in numbered]}

    def finish(self, finish: str | None) -> str | None:
        """Return why an answer ended: to call, where it called and was not cut."""
        if finish != "stop" or not self._names:
            return finish
        return "function_call" if self._of_old else "tool_calls"

    def _begin(self, name: str) -> None:
        self._ids.append(f"call_{uuid.uuid4().hex[:24]}")
        self._names.append(name)
        self._arguments.append([])
        self._tell({"name": name, "arguments": ""}, {"id": self._ids[-1], "type": "function"})

    def _tell(self, function: Json, beside: Json | None = None) -> None:
        if self._of_old:
            self._untold.append({"function_call": function})
        else:
            self._untold.append({"tool_calls": [{"index": len(self._ids) - 1, **(beside or {}), "function": function}]})
