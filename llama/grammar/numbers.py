"""Numbers within bounds as grammars, digit by digit; those that are bounded are written without an exponent."""

import math
from decimal import Decimal
from typing import NamedTuple

from llama.grammar.expressions import EMPTY, Choice, Expression, Repeat, among, choice, maybe, row

DIGITS = 15  # of a number, before the point and after it: as many as a double has
DIGIT = among("0-9")
SOME, ANY = Repeat(DIGIT, 1, DIGITS), Repeat(DIGIT, 0, DIGITS)
MORE = maybe(".", SOME)


class Bound(NamedTuple):
    """The end of a range."""

    value: Decimal
    open: bool  # whether the end itself is left out


def integers(least: int | None, most: int | None) -> Expression:
    """Return whole numbers within bounds; nothing where there are none."""
    ways: list[Expression] = []
    if most is None or most >= 0:
        ways.append(_naturals(max(0, least or 0), most))
    if least is None or least < 0:
        ways.append(row("-", _naturals(1 if most is None else max(1, -most), None if least is None else -least)))
    return Choice(tuple(ways))


def numbers(low: Bound | None, high: Bound | None) -> Expression:
    """Return numbers within bounds; nothing where there are none."""
    ways: list[Expression] = []
    zero = Bound(Decimal(0), False)
    if high is None or high.value >= 0:
        ways.append(_positive(low if low and low.value >= 0 else zero, high))
    if low is None or low.value < 0:
        least = Bound(-high.value, high.open) if high and high.value < 0 else Bound(Decimal(0), True)
        ways.append(row("-", _positive(least, low and Bound(-low.value, low.open))))
    return Choice(tuple(ways))


def _naturals(low: int, high: int | None) -> Expression:
    """Return numbers from 0 up; without a bound above they have DIGITS digits at most, or one more than the lowest."""
    length = len(str(low))
    if high is None:
        longer = row(among("1-9"), Repeat(DIGIT, length, max(DIGITS - 1, length)))
        return choice([_naturals(low, 10**length - 1), longer])
    ways = [
        _digits(str(max(low, 10 ** (digits - 1) if digits > 1 else 0)), str(min(high, 10**digits - 1)))
        for digits in range(length, len(str(high)) + 1)
    ]
    return Choice(tuple(ways) if low <= high else ())


def _digits(low: str, high: str) -> Expression:
    """Return numbers between two of as many digits."""
    if low.count("0") == high.count("9") == len(low):
        return Repeat(DIGIT, len(low), len(low))
    if low[0] == high[0]:
        return row(low[0], _digits(low[1:], high[1:]))
    rest = len(low) - 1
    ways: list[Expression] = [row(low[0], _digits(low[1:], "9" * rest)), row(high[0], _digits("0" * rest, high[1:]))]
    if int(high[0]) - int(low[0]) > 1:
        ways.append(row(among(f"{int(low[0]) + 1}-{int(high[0]) - 1}"), Repeat(DIGIT, rest, rest)))
    return Choice(tuple(ways))


def _positive(low: Bound, high: Bound | None) -> Expression:
    """Return numbers between two that are not negative: a whole part, and perhaps what is behind the point."""
    if high is not None and low.value > high.value:
        return Choice(())
    start, below = math.floor(low.value), _behind_point(low.value)
    if high is None:
        return choice([row(str(start), _fraction(below, low.open, None, False)), row(_naturals(start + 1, None), MORE)])
    end, above = math.floor(high.value), _behind_point(high.value)
    if start == end:
        return row(str(start), _fraction(below, low.open, above, high.open))
    first = row(str(start), _fraction(below, low.open, None, False))
    return choice(
        [first, row(_naturals(start + 1, end - 1), MORE), row(str(end), _fraction("", False, above, high.open))]
    )


def _behind_point(value: Decimal) -> str:
    return f"{value % 1:f}".partition(".")[2].rstrip("0")


def _fraction(low: str, low_open: bool, high: str | None, high_open: bool) -> Expression:
    """Return what is behind a whole part: digits between those of two bounds, or nothing where that is between them."""
    ways: list[Expression] = [row(".", _further(low, low_open, high, high_open, begun=False))]
    if not (low or low_open) and (high is None or high or not high_open):
        ways.append(EMPTY)
    return Choice(tuple(ways))


def _further(low: str | None, low_open: bool, high: str | None, high_open: bool, begun: bool) -> Expression:
    """Return the digits that may follow some with which both bounds begin, too.

    Args:
        low: what the lower bound goes on with; None where the number is above it already.
        low_open: whether the bound itself is left out.
        high: what the upper bound goes on with; None where the number is below it already.
        high_open: whether the bound itself is left out.
        begun: whether there was a digit.
    """
    if low == "" and not low_open:
        low = None
    if high is None and not low:
        return row(Repeat(among("0"), 0, DIGITS), among("1-9"), ANY) if low == "" else ANY if begun else SOME
    if high == "":
        zeros = Repeat(among("0"), 0 if begun else 1, DIGITS)
        return zeros if low is None and not high_open else Choice(())
    ways: list[Expression] = [EMPTY] if begun and low is None else []
    least, most = int(low[0]) if low else 0, int(high[0]) if high else 9
    for digit in range(least, most + 1):
        lower = None if low is None or digit > least else low[1:]
        upper = None if high is None or digit < most else high[1:]
        ways.append(row(str(digit), _further(lower, low_open, upper, high_open, begun=True)))
    return Choice(tuple(ways))
