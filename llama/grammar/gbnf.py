"""llama.cpp's own form of grammars, GBNF, as its grammars/README.md describes it, as Lark's; less tokens (`<…>`).

A grammar without recursion is one lexeme, which llguidance follows as an automaton. In one with recursion each
character is a lexeme of its own: of longer ones its lexer takes the longest, where a grammar may mean any.
"""

import re
import sys
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from llama.errors import RequestError
from llama.grammar.lark import NOTHING, START, Grammar

DEEPEST = 100  # groups within groups
MOST_STACKED = 10  # repetitions of repetitions
MOST_REPEATED = 2_000  # as in llama.cpp
NAME = re.compile(r"[a-zA-Z0-9-]+")
# With and without line ends: within a rule one ends it, but in brackets.
BLANK, GAP = re.compile(r"(?:[ \t]|#[^\r\n]*)*"), re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
COUNTS = re.compile(r"\{[ \t]*(\d{1,9})[ \t]*(,?)[ \t]*(\d{0,9})[ \t]*\}")
ESCAPES = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
QUANTIFIERS = "*+?"
HEX = {"x": 2, "u": 4, "U": 8}
NEVER = "{0,0}"
SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))  # halves of pairs, and no characters
ANY, NONE = r"/(?s:.)/", r"/[^\x{0}-\x{10FFFF}]/"


class Reference(NamedTuple):
    """A rule, by its name."""

    name: str


ROOT = "root"
Body = list[str | Reference]  # of a rule, in Lark's words


def gbnf_grammar(text: str, param: str) -> Grammar:
    """Return a grammar. Raises RequestError, with the line, for a text that is none; and for a rule that is missing."""
    rules = _Reader(text, param).rules()
    uses = {name: {part.name for part in body if isinstance(part, Reference)} for name, body in rules.items()}
    for missing in sorted({ROOT}.union(*uses.values()) - rules.keys()):
        raise RequestError(f"{param}: the grammar has no rule named {missing[:100]}.", param=param)
    try:
        TopologicalSorter(uses).prepare()
        kind = "GBNF"  # in capitals a rule is a part of a lexeme
    except CycleError:
        kind = "gbnf"
    names = {name: f"{kind}{number}" for number, name in enumerate(rules)}
    lark = {
        names[name]: " ".join(names[part.name] if isinstance(part, Reference) else part for part in body)
        for name, body in rules.items()
    }
    return Grammar({START: names[ROOT], **lark})


class _Reader:
    def __init__(self, text: str, param: str) -> None:
        self._text, self._param, self._at, self._depth = text, param, 0, 0
        self._rules: dict[str, Body] = {}

    def rules(self) -> dict[str, Body]:
        """Return them, groups among them: llguidance takes no more than 30 within each other."""
        rules = self._rules
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

    def _choices(self) -> Body:
        body = self._sequence()
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(GAP)
            body += ["|", *self._sequence()]
        return body

    def _sequence(self) -> Body:
        found: Body = []
        while item := self._item():
            self._skip(GAP if self._depth else BLANK)
            found += self._repeated(item)
        return found or [NOTHING]

    def _item(self) -> Body:
        """Return what comes next in a row; nothing at its end."""
        char = self._text[self._at : self._at + 1]
        if char == '"':
            return ["(", *self._literal(), ")"]
        if char == "[":
            return [self._class()]
        if char == "(":
            return [self._group()]
        if char == ".":
            self._at += 1
            return [ANY]
        if char in ("<", "!") and char:
            raise self._refusal("has a token (<…>), which is not supported here: write its text")
        if char in (*QUANTIFIERS, "{") and char:
            raise self._refusal("repeats nothing")
        return [Reference(self._name())] if NAME.match(char) else []

    def _literal(self) -> Body:
        """Return a text, character by character."""
        self._at += 1
        found: Body = []
        while not self._text.startswith('"', self._at):
            found.append(f"/{_escaped(self._char())}/")
        self._at += 1
        return found or [NOTHING]

    def _class(self) -> str:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[str] = []
        while not self._text.startswith("]", self._at):
            first = last = self._char()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._char()
            if first <= last:
                ranges.append(f"{_escaped(first)}-{_escaped(last)}")
        self._at += 1
        if not ranges:
            return ANY if negated else NONE
        return f"/[{'^' * negated}{''.join(ranges)}]/"

    def _group(self) -> Reference:
        self._at += 1
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._refusal(f"has groups more than {DEEPEST} deep")
        self._skip(GAP)
        inner = self._choices()
        self._need(")")
        self._depth -= 1
        name = f"group {len(self._rules)}"
        self._rules[name] = inner
        return Reference(name)

    def _char(self) -> str:
        char = self._text[self._at : self._at + 1]
        self._at += 1
        if not char:
            raise self._refusal("ends too early")
        if char != "\\":
            if char in SURROGATES:
                raise self._refusal("has half a character")
            return char
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        if kind in HEX:
            digits = self._text[self._at : self._at + HEX[kind]]
            self._at += len(digits)
            number = int(digits, 16) if re.fullmatch(rf"[0-9a-fA-F]{{{HEX[kind]}}}", digits) else None
            if number is not None and number <= sys.maxunicode and chr(number) not in SURROGATES:
                return chr(number)
        elif kind in ESCAPES:
            return ESCAPES[kind]
        raise self._refusal(f"has an escape that is none: \\{kind}")

    def _repeated(self, item: Body) -> Body:
        counts: list[str] = []
        while (char := self._text[self._at : self._at + 1]) and char in QUANTIFIERS + "{":
            counts.append(self._counts() if char == "{" else char)
            self._at += char != "{"
            if counts[-1] == NEVER:
                item, counts = [NOTHING], []
            if len(counts) > MOST_STACKED:
                raise self._refusal(f"repeats a repetition more than {MOST_STACKED} times")
            self._skip(GAP if self._depth else BLANK)
        return ["("] * (len(counts) - 1) + item + [part for count in counts for part in (count, ")")][:-1]

    def _counts(self) -> str:
        found = COUNTS.match(self._text, self._at)
        if not found:
            raise self._refusal("has a repetition that is none, such as {2,3}")
        least = int(found[1])
        most = int(found[3]) if found[3] else None if found[2] else least
        if max(least, most or 0) > MOST_REPEATED or (most is not None and most < least):
            raise self._refusal(f"has a repetition that is none, or over {MOST_REPEATED}")
        self._at = found.end()
        return f"{{{least},{'' if most is None else most}}}"


def _escaped(char: str) -> str:
    """Return a character as regular expressions have it."""
    return rf"\x{{{ord(char):X}}}"
