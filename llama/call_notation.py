"""Arguments of a call that are written as one object, but not as JSON, told as JSON while they come.

    {city:<|"|>Paris<|"|>,days:[1,2],sure:true}        Gemma 4
    (city='Paris', days=[1, 2], sure=True)             LFM2, and whoever calls as Python does

A text is told as it comes, any other value when it is whole. What is no value of the notation is told as a text.
"""

import json
import re
from collections.abc import Callable, Mapping

from llama.call_format import Notation
from llama.call_parameters import LONGEST_NAME, TEXT, converted, types_of
from llama.marks import begun

NUMBERS = frozenset({"integer", "number"})
WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
NAME = r"[^\s{}\[\](),:=\"'<>]+"
# What stands in quotes of Python's, and the beginning of what does.
PYTHON_TEXT = r"(?P<string>'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")"
ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)|[^\\]+|\\", re.DOTALL)
NAMES, CLOSES = re.compile(r"\s*[:=]"), re.compile(r"\s*[\])}]")  # what may follow a name, and a last comma
HALF_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*(\\(?:x[0-9a-fA-F]?|u[0-9a-fA-F]{0,3}|U[0-9a-fA-F]{0,7}|[0-7]{1,2})?)$")
CONTROL = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "\n": "", "\\": "\\", "'": "'"}
CONTROL |= {'"': '"', "/": "/"}


class NotedArguments:
    """Reads the arguments of one call."""

    def __init__(self, notation: Notation, schema: Mapping[str, object]) -> None:
        """By the notation in which its model writes them, and the schema of its tool."""
        self._schema, self._lexemes = schema, Lexemes(notation)
        opened, closed = re.escape(notation.open), re.escape(notation.close)
        self._open, self._end = re.compile(rf"\s*{opened}"), re.compile(rf"\s*,?\s*{closed}")
        self._name = re.compile(
            rf"\s*,?\s*(?P<quote>[\"']?)(?P<name>{NAME})(?P=quote)\s*[{re.escape(notation.equals)}:]\s*"
        )
        self._take: Callable[[str, bool], tuple[str, str] | None] = self._opened  # what is to come next
        self._types: frozenset[str] | None = None  # of the value that is under way; None: any
        self._quote = ""  # around it, where it is a text
        self._count = 0
        self._ended = False

    def take(self, text: str, last: bool) -> tuple[str, str, bool]:
        """Return what of a text is known, as JSON; the rest of it; and whether the arguments end there."""
        told = ""
        while not self._ended and (taken := self._take(text, last)) is not None:
            more, text = taken
            told += more
        return told, text, self._ended

    def _opened(self, text: str, last: bool) -> tuple[str, str] | None:
        if not (found := self._open.match(text)):
            return self._closed(text) if last else None
        self._take = self._named
        return "", text[found.end() :]

    def _closed(self, text: str) -> tuple[str, str]:
        self._ended = True
        return "}" if self._count else "{}", text

    def _named(self, text: str, last: bool) -> tuple[str, str] | None:
        """Take the name of an argument, or the end of them."""
        if found := self._end.match(text):
            return self._closed(text[found.end() :])
        if not (found := self._name.match(text)) or (found.end() == len(text) and not last):
            return self._closed(text) if last or len(text) > LONGEST_NAME else None
        name = found["name"]
        self._types, self._take = types_of(self._schema, name), self._valued
        told = f"{', ' if self._count else '{'}{_json(name)}: "
        self._count += 1
        return told, text[found.end() :]

    def _valued(self, text: str, last: bool) -> tuple[str, str] | None:
        """Take a value that is whole, or the beginning of a text."""
        if self._types is None or self._types & TEXT:
            quotes = self._lexemes.quotes
            if not last and any(quote.startswith(text) and quote != text for quote in quotes):
                return None
            self._quote = next(filter(text.startswith, quotes), "")
            if self._quote:
                self._take = self._texted
                return '"', text[len(self._quote) :]
        end = self._lexemes.end(text)
        if end is None:
            return (text, "") if last and text else None  # cut: as far as it came
        self._take = self._named
        value, rest = text[:end].strip(), text[end:]
        is_text = self._types == TEXT and re.fullmatch(NAME, value) and WORDS.get(value) != "null"
        return _json(value) if is_text else self._lexemes.as_json(value), rest

    def _texted(self, text: str, last: bool) -> tuple[str, str] | None:
        """Take of a text what has come."""
        is_python = self._quote[0] in "\"'"
        body = r"(?:\\.|[^\\])*?" if is_python else ".*?"
        if found := re.match(rf"({body}){re.escape(self._quote)}", text, re.DOTALL):
            self._take = self._named
            return _told(found[1], is_python) + '"', text[found.end() :]
        free = len(text) if last else len(text) - begun(text, self._quote)
        if is_python and not last and (half := HALF_ESCAPE.search(text)):
            free = min(free, half.start(1))
        return (_told(text[:free], is_python), text[free:]) if free else None


class Lexemes:
    """What values of a notation are made of."""

    def __init__(self, notation: Notation) -> None:
        """Of one."""
        own = [] if notation.is_python else [notation.quote]
        self.quotes = [*own, "'''", '"""', "'", '"']  # what texts begin with, the longest first
        text = "".join(rf"{mark}(?P<text>.*?){mark}|" for mark in map(re.escape, own))
        begun_text = "|".join(map(re.escape, self.quotes))
        self._lexeme = re.compile(
            rf"{text}{PYTHON_TEXT}|(?P<begun>{begun_text})|(?P<open>[{{(\[])|(?P<comma>,)|(?P<close>[}})\]])|(?P<word>{NAME})|.",
            re.DOTALL,
        )

    def end(self, text: str) -> int | None:
        """Return where a value ends: before a comma or what closes the arguments; None where that is not to be seen."""
        depth = 0
        for found in self._lexeme.finditer(text):
            kind = found.lastgroup
            if kind == "begun":
                return None
            if not depth and kind in ("comma", "close"):
                return found.start()
            depth += (kind == "open") - (kind == "close")
        return None

    def as_json(self, value: str) -> str:
        """Return a value as JSON; as a text, where it is none of the notation."""
        pieces = []
        for found in self._lexeme.finditer(value):
            match found.lastgroup:
                case "text":
                    pieces.append(_json(found["text"]))
                case "string":
                    quote = next(filter(found["string"].startswith, self.quotes))
                    pieces.append(f'"{_told(found["string"][len(quote) : -len(quote)], True)}"')
                case "word":
                    pieces.append(_json(found[0]) if NAMES.match(value, found.end()) else _word(found[0]))
                case "comma" if CLOSES.match(value, found.end()):  # as Python may have it behind the last
                    pass
                case _:
                    pieces.append({"(": "[", ")": "]", "=": ":"}.get(found[0], found[0]))
        read = "".join(pieces)
        try:
            json.loads(read)
        except (ValueError, RecursionError):
            return _json(value)
        return read


def written(notation: Notation, value: object) -> str:
    """Return a value as a notation has it."""
    if isinstance(value, dict):
        pairs = ((_json(key) + ": " if notation.is_python else f"{key}:", of) for key, of in value.items())
        return "{" + notation.comma.join(key + written(notation, of) for key, of in pairs) + "}"
    if isinstance(value, list):
        return "[" + notation.comma.join(written(notation, of) for of in value) + "]"
    if isinstance(value, str):
        return _json(value) if notation.is_python else notation.quote + value + notation.quote
    return repr(value) if notation.is_python else json.dumps(value)


def written_call(notation: Notation, name: str, arguments: Mapping[str, object]) -> str:
    """Return a call as a notation has it."""
    pairs = (f"{key}{notation.equals}{written(notation, value)}" for key, value in arguments.items())
    return name + notation.open + notation.comma.join(pairs) + notation.close


def _word(word: str) -> str:
    """Return a word without quotes: one of those that stand for a value, a number, or a text all the same."""
    return WORDS.get(word) or converted(word, NUMBERS)


def _told(text: str, is_python: bool) -> str:
    """Return what stands between quotes as JSON has it between its own."""
    return "".join(map(_escape, ESCAPE.findall(text))) if is_python else _json(text)[1:-1]


def _escape(part: str) -> str:
    """Return an escape of Python's as one of JSON's; any other part of a text as it is in JSON."""
    if not part.startswith("\\") or len(part) == 1:
        return _json(part)[1:-1]
    kind, digits = part[1], part[2:]
    if kind == "u" and digits:
        return part  # perhaps half a character, of which JSON makes a whole one
    char = CONTROL.get(kind, part)
    if kind in "01234567" or (kind in "xU" and digits):
        code = int(digits, 16) if digits and kind in "xU" else int(part[1:], 8)
        char = part if code > 0x10FFFF or 0xD800 <= code < 0xE000 else chr(code)
    return _json(char)[1:-1]


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
