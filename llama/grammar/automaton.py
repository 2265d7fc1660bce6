"""Reads texts byte by byte as a grammar has them, and knows after each what may follow.

A grammar is a pushdown automaton: a state is the set of stacks that it may have by now, each a frame, what comes next
and the frame below (Aho and Ullman 1972). States and the ways between them are worked out when they are first needed
and kept, as a lazy DFA does.

All work is counted and bounded, since a grammar comes with a request: an ambiguous one may have twice as many stacks
after each byte. llama.cpp's own sampler has no such bound, and some grammars end the process with it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import numpy as np

from llama.errors import RequestError
from llama.grammar.expressions import ROOT, Chars, Choice, Expression, Grammar, Ranges, Repeat, Row, Text

MOST_ITEMS = 100_000  # of a grammar, with its repetitions written out
WORK = 200_000  # steps for an answer, and so many more for each of its tokens; a step takes 2 to 5 microseconds
WORK_PER_TOKEN = 5_000
UTF8_LENGTHS = ((0x7F, 1), (0x7FF, 2), (0xFFFF, 3), (0x10FFFF, 4))  # up to which character, how many bytes

DEAD, BOTTOM = 0, 0  # the state that nothing leads out of; the frame below all others


class Bytes(NamedTuple):
    """One byte out of a set, which is bits of a number."""

    set: int


class Call(NamedTuple):
    """A rule, by its number."""

    rule: int


Item = Bytes | Call
Alternative = tuple[Item, ...]


class Rules:
    """A grammar as rules over bytes, each a list of alternatives without anything nested."""

    def __init__(self, grammar: Grammar, start: str) -> None:
        """Lay a grammar out. Raises RequestError for a rule that is missing, and one too large."""
        self.alternatives: list[list[Alternative]] = []
        self._items = 0
        self._characters: dict[Ranges, Call] = {}
        self._names = {name: self._reserve() for name in grammar}
        self.start = self._named(start)
        for name, expression in grammar.items():
            self.alternatives[self._names[name]] = self._choices(expression)

    def _named(self, name: str) -> int:
        if name not in self._names:
            raise RequestError(f"The grammar has no rule {name[:100]!r}.")
        return self._names[name]

    def _reserve(self) -> int:
        self.alternatives.append([])
        return len(self.alternatives) - 1

    def _add(self, alternatives: list[Alternative]) -> Call:
        self.alternatives.append(alternatives)
        self._count(1)
        return Call(len(self.alternatives) - 1)

    def _count(self, items: int) -> None:
        self._items += items
        if self._items > MOST_ITEMS:
            raise RequestError(f"The grammar is too large: with its repetitions written out over {MOST_ITEMS:,} items.")

    def _choices(self, expression: Expression) -> list[Alternative]:
        parts = expression.parts if isinstance(expression, Choice) else (expression,)
        return [self._row(part) for part in parts]

    def _row(self, expression: Expression) -> Alternative:
        match expression:
            case Text(text):
                items: Alternative = tuple(Bytes(1 << byte) for byte in text.encode(errors="surrogatepass"))
                self._count(len(items))
            case Chars(ranges):
                items = self._chars(ranges)
            case Row(parts):
                items = tuple(item for part in parts for item in self._row(part))
            case Choice():
                items = (self._add(self._choices(expression)),)
            case Repeat():
                items = self._repeat(expression)
            case _:
                items = (Call(self._named(expression.name)),)
                self._count(1)
        return items

    def _chars(self, ranges: Ranges) -> Alternative:
        """Return characters as their UTF-8 bytes."""
        if ranges not in self._characters:
            sequences = [tuple(map(Bytes, sets)) for first, last in ranges for sets in utf8(first, last)]
            single = [sequence[0].set for sequence in sequences if len(sequence) == 1]
            longer = [sequence for sequence in sequences if len(sequence) > 1]
            self._count(sum(map(len, sequences)))
            if not longer:
                return (Bytes(_union(single)),)
            ascii_first: list[Alternative] = [(Bytes(_union(single)),)] if single else []
            self._characters[ranges] = self._add([*ascii_first, *longer])
        return (self._characters[ranges],)

    def _repeat(self, repeat: Repeat) -> Alternative:
        if repeat.most is not None and repeat.most < repeat.least:
            return (self._add([]),)  # nothing is
        part = self._row(repeat.part)
        if len(part) > 1 and (repeat.least > 1 or repeat.most is None or repeat.most > 1):
            part = (self._add([part]),)
        self._count(repeat.least * len(part))
        required = part * repeat.least
        if repeat.most is None:
            again = self._reserve()
            self.alternatives[again] = [(*part, Call(again)), ()]
            return (*required, Call(again))
        more: Alternative = ()
        for _ in range(repeat.most - repeat.least):
            more = (self._add([(*part, *more), ()]),)
        return (*required, *more)

    def checked(self) -> list[list[Alternative]]:
        """Return the rules without alternatives that never come to an end.

        Raises RequestError where nothing is left of the first, and for a rule that begins with itself.
        """
        ending = self._holding(by_bytes=True)
        rules = [
            [items for items in alternatives if all(isinstance(item, Bytes) or item.rule in ending for item in items)]
            for alternatives in self.alternatives
        ]
        if self.start not in ending:
            raise RequestError("The grammar lets no text come to an end.")
        empty = self._holding(by_bytes=False)
        try:
            TopologicalSorter({rule: set(_first(rules[rule], empty)) for rule in range(len(rules))}).prepare()
        except CycleError as error:
            names = {number: name for name, number in self._names.items()}
            name = next((names[rule] for rule in error.args[1] if rule in names), ROOT)
            raise RequestError(
                f"The grammar's rule {name[:100]!r} begins with itself, or repeats what may be empty (left recursion)."
            ) from None
        return rules

    def _holding(self, by_bytes: bool) -> set[int]:
        """Return the rules with an alternative of which every item holds: bytes do or do not, a rule if it is here."""
        waiting: dict[int, list[list[int]]] = defaultdict(list)
        ready = []
        for rule, alternatives in enumerate(self.alternatives):
            for items in alternatives:
                calls = {item.rule for item in items if isinstance(item, Call)}
                if by_bytes or all(isinstance(item, Call) for item in items):
                    entry = [rule, len(calls)]
                    ready += [] if calls else [rule]
                    for call in calls:
                        waiting[call].append(entry)
        holding = set[int]()
        while ready:
            rule = ready.pop()
            if rule in holding:
                continue
            holding.add(rule)
            for entry in waiting[rule]:
                entry[1] -= 1
                ready += [] if entry[1] else [entry[0]]
        return holding


def _first(alternatives: Iterable[Alternative], empty: set[int]) -> Iterator[int]:
    """Yield the rules that alternatives may begin with."""
    for items in alternatives:
        for item in items:
            if isinstance(item, Bytes):
                break
            yield item.rule
            if item.rule not in empty:
                break


class Automaton:
    """What may follow in texts of one grammar. Not for two threads at once."""

    def __init__(self, grammar: Grammar, start: str = ROOT) -> None:
        """Work out how texts of the rule `start` begin. Raises RequestError for a grammar that cannot be followed."""
        rules = Rules(grammar, start)
        self._code: list[Item | None] = []  # items of all alternatives; None ends each
        self._starts = [[self._write(items) for items in alternatives] for alternatives in rules.checked()]
        self._frames: dict[tuple[int, int], int] = {}
        self._frame: list[tuple[int, int]] = [(-1, -1)]  # what comes next, and the frame below
        self._states: dict[tuple[frozenset[int], bool], int] = {(frozenset(), False): DEAD}
        self._stacks: list[tuple[frozenset[int], bool]] = [(frozenset(), False)]
        self.ways = np.zeros((64, 256), np.int32)  # the state after each, by byte; those worked out
        self._known = {DEAD}
        self._bytes: dict[int, list[int]] = {}  # of each set that there is
        self._work = WORK
        self.start = self._state([self._push(self._write((Call(rules.start),)), BOTTOM)])

    def allow(self) -> None:
        """Let it work on, for one more token."""
        self._work += WORK_PER_TOKEN

    def after(self, state: int, text: bytes) -> int:
        """Return the state after a text; DEAD where the grammar has no such text."""
        for byte in text:
            self.work_out([state])
            state = int(self.ways[state, byte])
        return state

    def is_end(self, state: int) -> bool:
        """Return whether a text may end there."""
        return self._stacks[state][1]

    def goes_on(self, state: int) -> bool:
        """Return whether a text may go on there."""
        return bool(self._stacks[state][0])

    def work_out(self, states: Iterable[int]) -> None:
        """Fill in `ways` from these states. Raises RequestError where that is too much work."""
        for state in states:
            if state not in self._known:
                for alike, following in list(self._ways(self._stacks[state][0])):
                    self.ways[state, alike] = following
                self._known.add(state)

    def _ways(self, stacks: frozenset[int]) -> Iterator[tuple[list[int], int]]:
        """Yield the bytes that may follow, those that lead on alike together, and the state after them."""
        by_set = defaultdict[int, list[int]](list)
        for stack in stacks:
            item = self._code[self._frame[stack][0]]
            by_set[item.set if isinstance(item, Bytes) else 0].append(stack)
        sets = list(by_set)
        kind_of = [0] * 256
        for place, members in enumerate(sets):
            for byte in self._members(members):
                kind_of[byte] |= 1 << place
        kinds = defaultdict[int, list[int]](list)
        for byte, kind in enumerate(kind_of):
            kinds[kind].append(byte)
        kinds.pop(0, None)
        self._spend(len(stacks) + 32 + 4 * len(sets))
        for kind, alike in kinds.items():
            moved = [stack for place, members in enumerate(sets) if kind >> place & 1 for stack in by_set[members]]
            yield alike, self._state([self._advanced(stack) for stack in moved])

    def _members(self, members: int) -> list[int]:
        if members not in self._bytes:
            self._bytes[members] = [byte for byte in range(256) if members >> byte & 1]
        return self._bytes[members]

    def _advanced(self, stack: int) -> int:
        at, below = self._frame[stack]
        return self._push(at + 1, below)

    def _write(self, items: Alternative) -> int:
        self._code += [*items, None]
        return len(self._code) - len(items) - 1

    def _push(self, at: int, below: int) -> int:
        """Return the frame that goes on at a place; the one below where that is the end."""
        if self._code[at] is None:
            return below
        if (at, below) not in self._frames:
            self._frames[at, below] = len(self._frame)
            self._frame.append((at, below))
        return self._frames[at, below]

    def _state(self, frames: Sequence[int]) -> int:
        """Return the state with these frames on top, each followed down to a byte."""
        todo, seen, stacks, ends = list(frames), set(frames), set[int](), False
        while todo:
            self._spend(1)
            frame = todo.pop()
            if frame == BOTTOM:
                ends = True
                continue
            at, below = self._frame[frame]
            item = self._code[at]
            if not isinstance(item, Call):
                stacks.add(frame)
                continue
            self._spend(len(self._starts[item.rule]))
            back = self._push(at + 1, below)
            further = {self._push(start, back) for start in self._starts[item.rule]} - seen
            seen |= further
            todo += further
        key = frozenset(stacks), ends
        if key not in self._states:
            self._states[key] = len(self._stacks)
            self._stacks.append(key)
            if len(self._stacks) > len(self.ways):
                self.ways = np.concatenate([self.ways, np.zeros_like(self.ways)])
        return self._states[key]

    def _spend(self, steps: int) -> None:
        self._work -= steps
        if self._work < 0:
            raise RequestError("The grammar is too ambiguous or too large to be followed: simplify it.")


def utf8(first: int, last: int) -> Iterator[tuple[int, ...]]:
    """Yield the UTF-8 of a range of characters: sequences of sets of bytes."""
    start = first
    for end, length in UTF8_LENGTHS:
        if start <= min(last, end):
            yield from _sequences(start, min(last, end), length)
            start = end + 1


def _sequences(first: int, last: int, length: int) -> Iterator[tuple[int, ...]]:
    """Yield the UTF-8 of characters with as many bytes each."""
    low, high = chr(first).encode(errors="surrogatepass"), chr(last).encode(errors="surrogatepass")
    yield from _between(low, high) if length > 1 else [(_bits(first, last),)]


def _between(low: bytes, high: bytes) -> Iterator[tuple[int, ...]]:
    """Yield what lies between two sequences of bytes, of which all but the first go from 0x80 to 0xBF."""
    if len(low) == 1:
        yield (_bits(low[0], high[0]),)
        return
    if low[0] == high[0]:
        yield from ((_bits(low[0], low[0]), *rest) for rest in _between(low[1:], high[1:]))
        return
    least, most = b"\x80" * (len(low) - 1), b"\xbf" * (len(low) - 1)
    start, end = low[0], high[0]
    if low[1:] != least:
        yield from ((_bits(start, start), *rest) for rest in _between(low[1:], most))
        start += 1
    if high[1:] != most:
        yield from ((_bits(end, end), *rest) for rest in _between(least, high[1:]))
        end -= 1
    if start <= end:
        yield (_bits(start, end), *(_bits(0x80, 0xBF) for _ in least))


def _bits(first: int, last: int) -> int:
    return (1 << last + 1) - (1 << first)


def _union(sets: Iterable[int]) -> int:
    found = 0
    for members in sets:
        found |= members
    return found
