"""Regular expressions as grammars: what JSON schemas and other programs' servers take, less what looks around."""

from llama.errors import RequestError
from llama.grammar.expressions import (
    Chars,
    Choice,
    Expression,
    Ranges,
    Repeat,
    Row,
    joined,
    others,
)

DEEPEST = 100  # groups within groups
DIGIT: Ranges = ((48, 57),)
WORD: Ranges = joined([(48, 57), (65, 90), (95, 95), (97, 122)])
SPACE: Ranges = joined((ord(char), ord(char)) for char in "\t\n\v\f\r ")
DOT: Ranges = others([(10, 10), (13, 13)])
CLASSES = {"d": DIGIT, "D": others(DIGIT), "w": WORD, "W": others(WORD), "s": SPACE, "S": others(SPACE)}
CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
HEX = {"x": 2, "u": 4}
QUANTIFIERS = {"*": (0, None), "+": (1, None), "?": (0, 1)}
MOST_REPEATED = 10_000
LONGEST_COUNTS = 16  # characters of {1,2}

_MONTH_AND_DAY = (
    "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = rf"[12][0-9]{{3}}-{_MONTH_AND_DAY}"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
# Formats of texts. Each lets through only what is of it, though not all: no leap days or seconds, no quoted addresses.
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "hostname": _HOST,
    "email": rf"[A-Za-z0-9_+-]{{1,30}}(\.[A-Za-z0-9_+-]{{1,30}}){{0,2}}@{_LABEL}(\.{_LABEL}){{0,2}}\.[A-Za-z]{{2,12}}",
    "uri": rf"https?://{_HOST}(:[1-9][0-9]{{0,3}})?(/[A-Za-z0-9._~-]{{0,60}}){{0,8}}(\?[A-Za-z0-9._~=&-]{{1,60}})?",
}


def pattern(text: str, param: str, anchored: bool = True) -> Expression:
    """Return the texts that a pattern fits.

    Args:
        text: the pattern, in what ECMAScript and Python have in common.
        param: the field that it is, for errors.
        anchored: it is of a whole text; else of a part of one, unless it begins with ^ and ends with $.

    Raises RequestError for one that is none, or looks around or back.
    """
    reader = _Reader(text, param)
    whole = reader.choices()
    if not reader.ended:
        raise reader.refusal("has a ) too many")
    if anchored:
        return whole
    # Each way has its own ends: ^a|b$ begins as the first says and ends as the second does.
    ways = [Row((*_around(way, "^"), way.inner, *_around(way, "$"))) for way in reader.ways]
    return Choice(tuple(ways))


def _around(way: "_Way", end: str) -> tuple[Expression, ...]:
    return () if end in way.ends else (Repeat(Chars(DOT)),)


class _Way:
    """One of a pattern's ways on its outermost level, and which of its ends are marked."""

    def __init__(self, inner: Expression, ends: str) -> None:
        self.inner, self.ends = inner, ends


class _Reader:
    def __init__(self, text: str, param: str) -> None:
        self._text, self._param, self._at, self._depth = text, param, 0, 0
        self.ways: list[_Way] = []

    @property
    def ended(self) -> bool:
        return self._at >= len(self._text)

    def _peek(self, length: int = 1) -> str:
        return self._text[self._at : self._at + length]

    def refusal(self, why: str) -> RequestError:
        return RequestError(f"{self._param}: the pattern {why}, at character {self._at + 1}.", param=self._param)

    def choices(self) -> Expression:
        ways = [self._sequence()]
        while self._take("|"):
            ways.append(self._sequence())
        return Choice(tuple(ways))

    def _sequence(self) -> Expression:
        parts: list[Expression] = []
        ends = ""
        if not self._depth and self._take("^"):
            ends += "^"
        while not self.ended and self._peek() not in "|)":
            if not self._depth and self._peek(2) in ("$", "$|"):
                self._at += 1
                ends += "$"
                break
            parts.append(self._repeated(self._atom()))
        found = Row(tuple(parts))
        if not self._depth:
            self.ways.append(_Way(found, ends))
        return found

    def _take(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _next(self) -> str:
        if self.ended:
            raise self.refusal("ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _atom(self) -> Expression:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return Chars(self._class())
        if char == ".":
            return Chars(DOT)
        if char == "\\":
            return Chars(self._escaped())
        if char in "^$":
            raise self.refusal(f"has a {char} within")
        if char in QUANTIFIERS or (char == "{" and self._text[self._at : self._at + 1].isdigit()):
            raise self.refusal("repeats nothing")
        return Chars(((ord(char), ord(char)),))

    def _group(self) -> Expression:
        if self._take("?") and not self._take(":"):
            raise self.refusal("has a group that looks around, is named or sets flags, which is not supported")
        self._depth += 1
        if self._depth > DEEPEST:
            raise self.refusal(f"has groups more than {DEEPEST} deep")
        inner = self.choices()
        self._depth -= 1
        if not self._take(")"):
            raise self.refusal("lacks a )")
        return inner

    def _repeated(self, part: Expression) -> Expression:
        char = self._peek()
        if char in QUANTIFIERS and char:
            self._at += 1
            least, most = QUANTIFIERS[char]
        elif char == "{" and self._peek(2)[1:].isdigit():
            least, most = self._counts()
        else:
            return part
        self._take("?")  # lazy: the same texts
        if self._peek() in (*QUANTIFIERS,):
            raise self.refusal("repeats a repetition")
        return Repeat(part, least, most)

    def _counts(self) -> tuple[int, int | None]:
        inside, closed, _ = self._peek(LONGEST_COUNTS)[1:].partition("}")
        first, comma, last = inside.partition(",")
        numbers = [int(number) for number in (first, last) if number.isdecimal() and len(number) < 6]
        if not closed or len(numbers) != 1 + bool(last) or any(number > MOST_REPEATED for number in numbers):
            raise self.refusal(f"has a repetition that is none, or over {MOST_REPEATED}")
        self._at += len(inside) + 2
        if not comma:
            return numbers[0], numbers[0]
        if last and numbers[1] < numbers[0]:
            raise self.refusal("has a repetition that is none")
        return numbers[0], numbers[1] if last else None

    def _class(self) -> Ranges:
        negated, ranges = self._take("^"), list[tuple[int, int]]()
        while not self._take("]"):
            first = self._member()
            if self._peek() == "-" and self._peek(2)[1:] not in ("]", ""):
                self._at += 1
                last = self._member()
                if len(first) > 1 or len(last) > 1 or first[0][0] > last[0][1] or first[0][0] != first[0][1]:
                    raise self.refusal("has a range that is none")
                ranges.append((first[0][0], last[0][1]))
            else:
                ranges += first
        return others(ranges) if negated else others(others(joined(ranges)))

    def _member(self) -> Ranges:
        char = self._next()
        if char == "\\":
            return ((8, 8),) if self._take("b") else self._escaped()
        return ((ord(char), ord(char)),)

    def _escaped(self) -> Ranges:
        char = self._next()
        if char in CLASSES:
            return CLASSES[char]
        if char in HEX:
            digits = self._peek(HEX[char])
            if len(digits) < HEX[char] or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
                raise self.refusal(f"has a \\{char} without {HEX[char]} digits")
            self._at += len(digits)
            return ((int(digits, 16), int(digits, 16)),)
        if char in CONTROLS:
            return ((ord(CONTROLS[char]), ord(CONTROLS[char])),)
        if char.isalnum():
            raise self.refusal(f"has a \\{char}, which is not supported")
        return ((ord(char), ord(char)),)
