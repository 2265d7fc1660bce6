"""What grammars are made of, whoever writes them: GBNF, JSON schemas, patterns, calls of tools."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

LAST_CHARACTER = 0x10FFFF
SURROGATES = (0xD800, 0xDFFF)  # no characters, and so in no text

Ranges = tuple[tuple[int, int], ...]  # of code points, first and last, ascending


@dataclass(frozen=True)
class Text:
    """A text as it stands."""

    text: str


@dataclass(frozen=True)
class Chars:
    """One character out of some ranges."""

    ranges: Ranges


@dataclass(frozen=True)
class Row:
    """Parts one after the other; without any it is the empty text."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Choice:
    """One of several; without any it is nothing at all, not even the empty text."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True)
class Repeat:
    """A part several times."""

    part: "Expression"
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Rule:
    """What the grammar has under a name."""

    name: str


Expression = Text | Chars | Row | Choice | Repeat | Rule
Grammar = Mapping[str, Expression]  # by name; an answer is what ROOT says
ROOT = "root"
EMPTY = Row(())


def row(*parts: Expression | str) -> Row:
    """Return parts one after the other."""
    return Row(tuple(map(_expression, parts)))


def choice(parts: Iterable[Expression | str]) -> Choice:
    """Return one of several."""
    return Choice(tuple(map(_expression, parts)))


def maybe(*parts: Expression | str) -> Repeat:
    """Return parts that may be left out."""
    return Repeat(row(*parts), 0, 1)


def among(*ranges: str) -> Chars:
    """Return one character of ranges, each written as its first and last, or as one alone."""
    return Chars(joined((ord(text[0]), ord(text[-1])) for text in ranges))


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order, put together where they touch."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        elif first <= last:
            found.append((first, last))
    return tuple(found)


def others(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return all characters but those in the ranges."""
    found, start = [], 0
    for first, last in joined([*ranges, SURROGATES]):
        found.append((start, first - 1))
        start = last + 1
    return joined([*found, (start, LAST_CHARACTER)])


def repeated(part: Expression, separator: Expression, least: int, most: int | None) -> Expression:
    """Return a part several times, with a separator between any two."""
    if most == 0:
        return EMPTY
    further = Repeat(row(separator, part), max(least - 1, 0), None if most is None else most - 1)
    return row(part, further) if least else maybe(part, further)


def _expression(part: Expression | str) -> Expression:
    return Text(part) if isinstance(part, str) else part


def texts(words: Sequence[str]) -> Choice:
    """Return one of several texts, put together where they begin alike, so that a thousand are one way each."""
    return choice(_branches(sorted(set(words)), 0))


def _branches(words: Sequence[str], start: int) -> Iterable[Expression]:
    """Yield the ways on from `start`, up to which all these words are one."""
    if words and len(words[0]) == start:
        yield EMPTY
        words = words[1:]
    while words:
        alike = [word for word in words if word[start] == words[0][start]]
        words = words[len(alike) :]
        end = len(common_beginning(alike[0], alike[-1]))
        yield row(alike[0][start:end], Choice(tuple(_branches(alike, end)))) if alike[1:] else Text(alike[0][start:])


def common_beginning(one: str, other: str) -> str:
    """Return what two texts begin with."""
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def scoped(grammar: Grammar, scope: str, shared: Grammar) -> Grammar:
    """Return a grammar that can stand beside others: with a name before those of its rules, but for shared ones."""

    def renamed(expression: Expression) -> Expression:
        match expression:
            case Rule(name) if name not in shared:
                return Rule(f"{scope} {name}")
            case Row(parts):
                return Row(tuple(map(renamed, parts)))
            case Choice(parts):
                return Choice(tuple(map(renamed, parts)))
            case Repeat(part, least, most):
                return Repeat(renamed(part), least, most)
        return expression

    return {f"{scope} {name}": renamed(of) for name, of in grammar.items() if name not in shared} | dict(shared)
