r"""Arguments of a call that are written one by one, in tags, told as JSON while they come.

    <parameter=city>\nParis\n</parameter>        {"city": "Paris"

Values are of the types that the tool's schema says: texts as they stand, all else as JSON or as Python writes it.
"""

import ast
import json
import re
from collections.abc import Mapping
from functools import partial
from typing import NoReturn

from llama.call_format import CallFormat, first_tag, plain

TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
NO_TEXT = frozenset(TYPES)
TEXT = frozenset({"string"})
LONGEST_NAME = 400  # characters that a name and its tags may have before they are known to be none
PARAMETER = r"[^<>\"\n]+?"  # the name of one
MOST_REFERENCES = 16  # from one to the next


class Parameters:
    """Reads the arguments of one call."""

    def __init__(self, form: CallFormat, schema: Mapping[str, object]) -> None:
        """By the form in which its model calls, and the schema of its tool."""
        self._schema, self._tags = schema, Tags(form)
        self._types: frozenset[str] | None = None  # of the value that is under way; None: any
        self._in_value = self._fresh = False
        self._count = 0

    def take(self, text: str, last: bool) -> tuple[str, str, bool]:
        """Return what of a text is known, as JSON; the rest of it; and whether the arguments end there."""
        told = ""
        while True:
            more, rest, ended = self._valued(text, last) if self._in_value else self._named(text, last)
            told += more
            if ended or rest == text:
                return told, rest, ended
            text = rest

    def _named(self, text: str, last: bool) -> tuple[str, str, bool]:
        """Take the name of an argument, or the end of them."""
        if found := self._tags.name.match(text):
            name = found["name"].strip()
            self._types = self._tags.said(found) or types_of(self._schema, name)
            self._in_value = self._fresh = True
            begun = f"{', ' if self._count else '{'}{_json(name)}: "
            self._count += 1
            return begun + ('"' if self._types == TEXT else ""), text[found.end() :], False
        if last or self._tags.tail.match(text) or len(text) > LONGEST_NAME:
            return "}" if self._count else "{}", text, True
        return "", text, False

    def _valued(self, text: str, last: bool) -> tuple[str, str, bool]:
        """Take of a value what is known: of a text what has come, of any other all at once."""
        if self._fresh and self._tags.in_lines:
            if not text:
                return "", text, False
            text = text.removeprefix("\n")
        self._fresh = False
        end = self._tags.end(text, last)
        if end:
            self._in_value = False
            value, rest = text[: end.start()], text[end.end() :]
            told = _json(value)[1:] if self._types == TEXT else converted(value, self._types)
            return told, rest, False
        if self._types != TEXT:
            return (text, "", False) if last else ("", text, False)
        free = len(text) if last else self._tags.free(text)
        return _json(text[:free])[1:-1], text[free:], False


class Tags:
    """What stands around arguments, as it is looked for in what a model writes."""

    def __init__(self, form: CallFormat) -> None:
        """For a form whose calls have parameters."""
        assert form.parameters  # noqa: S101
        parameters, tail = form.parameters, plain(form.tail).strip()
        between, unquoted = plain(parameters.between), plain(parameters.unquoted)
        self._before, self._after = plain(parameters.before).strip(), plain(parameters.after).strip()
        self._tail, self._further = first_tag(tail), tail.removeprefix(first_tag(tail)).strip()
        self.in_lines = between.endswith("\n")  # whether values stand in lines of their own
        before, after, first = map(re.escape, (self._before, self._after, self._tail))
        self._tells_type = unquoted != between
        others = dict.fromkeys([unquoted, *(plain(before) for _, before in parameters.typed)])
        ways = "|".join([f"(?P<text>{_loose(between)})", *(map(_loose, others) if self._tells_type else ())])
        self.name = re.compile(rf"\s*{before}(?P<name>{PARAMETER})(?:{ways})")
        self.tail = re.compile(rf"\s*{first}")
        closed = (r"\n?" if self.in_lines else "") + after
        # Models leave the closing tag out at times: where values have lines of their own, the next tag in one tells.
        next_line = rf"|\n(?={before}{PARAMETER}{_loose(between)}\n|{_loose(tail)})" if self.in_lines else ""
        self._end = re.compile(rf"{closed}(?=\s*(?:{before}|{first})){next_line}")
        self._last_end = re.compile(rf"{closed}(?=\s*(?:{before}|{first}|\Z)){next_line}")

    def said(self, name: re.Match[str]) -> frozenset[str] | None:
        """Return the types that a value's tag says that it is of; None where it says none."""
        if not self._tells_type:
            return None
        return TEXT if name["text"] is not None else NO_TEXT

    def end(self, text: str, last: bool) -> re.Match[str] | None:
        """Return where a value ends."""
        return (self._last_end if last else self._end).search(text)

    def free(self, text: str) -> int:
        """Return how much of a text in which no end is to be found is the value's whatever comes."""
        firsts = {self._before[0], self._after[0], self._tail[0]}
        at = next((at for at, char in enumerate(text) if char in firsts and self._may_end(text[at:])), len(text))
        return at - (self.in_lines and text[:at].endswith("\n"))

    def _may_end(self, rest: str) -> bool:
        if rest.startswith(self._after):
            follows = rest[len(self._after) :].lstrip()
            return any(tag.startswith(follows) for tag in (self._before, self._tail))
        if self.in_lines and rest.startswith(self._tail):
            return self._further.startswith(rest[len(self._tail) :].strip())
        if self.in_lines and rest.startswith(self._before):
            return len(rest) < LONGEST_NAME and "\n" not in rest
        return any(tag.startswith(rest) for tag in (self._after, self._before, self._tail))


def types_of(schema: Mapping[str, object], name: str) -> frozenset[str] | None:
    """Return the types that an argument may be of, by a tool's schema; None for any."""
    properties = schema.get("properties")
    return types_in(properties.get(name) if isinstance(properties, dict) else None, schema)


def types_in(schema: object, root: Mapping[str, object], depth: int = MOST_REFERENCES) -> frozenset[str] | None:
    """Return the types that a schema lets through, where its references are to `root`; None for any."""
    if not isinstance(schema, dict) or not depth:
        return None
    given = schema.get("type")
    if isinstance(given, str | list):
        named = frozenset(each for each in ([given] if isinstance(given, str) else given) if isinstance(each, str))
        return named if named and named <= NO_TEXT | TEXT else None
    if isinstance(given := schema.get("enum", [schema["const"]] if "const" in schema else None), list):
        return frozenset().union(*(_kinds(value) for value in given)) or None
    if isinstance(reference := schema.get("$ref"), str):
        found: object = root
        for step in reference.removeprefix("#/").split("/"):
            found = found.get(step) if isinstance(found, dict) else None
        return types_in(found, root, depth - 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(ways := schema.get(key), list):
            each = [types_in(way, root, depth - 1) for way in ways]
            return None if None in each else frozenset().union(*filter(None, each)) or None
    return None


def _kinds(value: object) -> frozenset[str]:
    """Return the types that a value is of."""
    if isinstance(value, str):
        return TEXT
    return frozenset(
        name
        for name, kind in TYPES.items()
        if isinstance(value, kind) and isinstance(value, bool) == (name == "boolean")
    )


def converted(text: str, types: frozenset[str] | None) -> str:
    """Return a value as JSON: of one of the types, or of any, where it can be read as one; else the text."""
    as_json = partial(json.loads, parse_constant=_refused)
    for read in (as_json,) if types is None else (as_json, ast.literal_eval):
        try:
            value = read(text.strip())
            written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if types is None or _kinds(value) & types:
            return written
    return _json(text)


def _refused(_: str) -> NoReturn:
    raise ValueError("no number of JSON's")


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _loose(text: str) -> str:
    """Return a pattern of a text that takes white space between its tags as it comes, and none at its end."""
    return r"\s*".join(map(re.escape, re.split(r"\s+|(?<=>)(?=<)", text.strip())))
