"""llama.cpp's own form of grammars, GBNF, as its grammars/README.md describes it; less tokens (`<…>`)."""

import re

from llama.errors import RequestError
from llama.grammar.expressions import (
    ROOT,
    Chars,
    Choice,
    Expression,
    Grammar,
    Repeat,
    Row,
    Rule,
    Text,
    joined,
    others,
)

DEEPEST = 100  # groups within groups
MOST_REPEATED = 2_000  # as in llama.cpp
NAME, NUMBER = re.compile(r"[a-zA-Z0-9-]+"), re.compile(r"\d{1,9}")
# With and without line ends: within a rule one ends it, but in brackets.
BLANK, GAP = re.compile(r"(?:[ \t]|#[^\r\n]*)*"), re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
COUNTS = re.compile(r"\{[ \t]*(\d{1,9})[ \t]*(,?)[ \t]*(\d{0,9})[ \t]*\}")
ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
HEX = {"x": 2, "u": 4, "U": 8}
QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
DOT = Chars(others([]))


def read_gbnf(text: str, param: str) -> Grammar:
    """Return a grammar. Raises RequestError, with the line, for a text that is none."""
    grammar = _Reader(text, param).grammar()
    if ROOT not in grammar:
        raise RequestError(f"{param}: the grammar has no rule named root.", param=param)
    return grammar


class _Reader:
    def __init__(self, text: str, param: str) -> None:
        self._text, self._param, self._at, self._depth = text, param, 0, 0

    def grammar(self) -> Grammar:
        rules: dict[str, Expression] = {}
        self._skip(GAP)
        while self._at < len(self._text):
            name = self._name()
            self._skip(BLANK)
            self._need("::=")
            self._skip(GAP)
            rules[name] = self._choices()
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                raise self._refusal("expects the end of the rule")
            self._skip(GAP)
        return rules

    def _refusal(self, why: str) -> RequestError:
        line = self._text.count("\n", 0, self._at) + 1
        return RequestError(f"{self._param}: line {line} of the grammar {why}.", param=self._param)

    def _skip(self, blank: re.Pattern[str]) -> None:
        found = blank.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _skip_within(self) -> None:
        self._skip(GAP if self._depth else BLANK)

    def _need(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            raise self._refusal(f"lacks a {text}")
        self._at += len(text)

    def _name(self) -> str:
        found = NAME.match(self._text, self._at)
        if not found:
            raise self._refusal("expects a rule's name")
        self._at = found.end()
        return found[0]

    def _choices(self) -> Expression:
        ways = [self._sequence()]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(GAP)
            ways.append(self._sequence())
        return Choice(tuple(ways))

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        while (part := self._item()) is not None:
            self._skip_within()
            parts.append(self._repeated(part))
        return Row(tuple(parts))

    def _item(self) -> Expression | None:
        """Return what comes next in a row; None at its end."""
        char = self._text[self._at : self._at + 1]
        if char == '"':
            return self._literal()
        if char == "[":
            return self._class()
        if char == "(":
            return self._group()
        if char == ".":
            self._at += 1
            return DOT
        if char in ("<", "!") and char:
            raise self._refusal("has a token (<…>), which is not supported here: write its text")
        if char in (*QUANTIFIERS, "{") and char:
            raise self._refusal("repeats nothing")
        return Rule(self._name()) if NAME.match(char) else None

    def _literal(self) -> Expression:
        self._at += 1
        found: list[str] = []
        while not self._text.startswith('"', self._at):
            found.append(self._char())
        self._at += 1
        return Text("".join(found))

    def _class(self) -> Expression:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while not self._text.startswith("]", self._at):
            first = last = ord(self._char())
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = ord(self._char())
            ranges.append((first, last))
        self._at += 1
        return Chars(others(ranges) if negated else others(others(joined(ranges))))

    def _group(self) -> Expression:
        self._at += 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._refusal(f"has groups more than {DEEPEST} deep")
        self._skip(GAP)
        inner = self._choices()
        self._need(")")
        self._depth -= 1
        return inner

    def _char(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if not char:
            raise self._refusal("ends too early")
        if char != "\\":
            return char
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        if kind in HEX:
            digits = self._text[self._at : self._at + HEX[kind]]
            self._at += len(digits)
            if re.fullmatch(r"[0-9a-fA-F]+", digits) and len(digits) == HEX[kind] and int(digits, 16) <= 0x10FFFF:
                return chr(int(digits, 16))
        elif kind in ESCAPES:
            return ESCAPES[kind]
        raise self._refusal(f"has an escape that is none: \\{kind}")

    def _repeated(self, part: Expression) -> Expression:
        while (char := self._text[self._at : self._at + 1]) and char in (*QUANTIFIERS, "{"):
            if char == "{":
                part = Repeat(part, *self._counts())
            else:
                self._at += 1
                part = Repeat(part, *QUANTIFIERS[char])
            self._skip_within()
        return part

    def _counts(self) -> tuple[int, int | None]:
        found = COUNTS.match(self._text, self._at)
        if not found:
            raise self._refusal("has a repetition that is none, such as {2,3}")
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if max(least, most or 0) > MOST_REPEATED or (most is not None and most < least):
            raise self._refusal(f"has a repetition that is none, or over {MOST_REPEATED}")
        self._at = found.end()
        return least, most
