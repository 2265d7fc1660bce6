"""Texts of tokenizers whose words llama.cpp splits otherwise, as their makers' code reads them.

A text is split into words by a pattern, and the bytes of each are merged, the pair with the lowest id first. llama.cpp
has o200k's and tekken's patterns in part alone: it parts "AÇÃO" before its O, "O'Donnell" behind "'D", or words before
their combining marks, and so reads them as tokens that the model hardly knows there.
"""

import heapq
import re
import unicodedata
from collections.abc import Mapping

_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "o200k": rf"{_WORD}{_UPPER}*{_LOWER}+{_ENDING}|{_WORD}{_UPPER}+{_LOWER}*{_ENDING}|\p{{N}}{{1,3}}|{_REST}",
    "tekken": rf"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*|\p{{N}}|{_REST}",
}

# Python's patterns know no categories. So each character beyond ASCII is taken for one that stands for its category.
_STANDS_FOR = {
    "Lu": "A", "Lt": "A", "Ll": "a", "Lm": "ª", "Lo": "ª", "Mn": "\u0300", "Mc": "\u0300", "Me": "\u0300",
    "Nd": "0", "Nl": "0", "No": "0", "Zs": "\v", "Zl": "\v", "Zp": "\v",
}  # fmt: skip
_RANGES = {
    "Lu": "A-Z", "Lt": "A-Z", "Ll": "a-z", "Lm": "ª", "Lo": "ª", "L": "A-Za-zª", "M": "\u0300", "N": r"\d",
}  # fmt: skip


class BytePairs:
    """Reads texts by one of PATTERNS and the tokens of one model."""

    def __init__(self, pattern: str, ids: Mapping[bytes, int]) -> None:
        """For a pattern's name, and the tokens that words may become, every single byte among them."""
        expression = re.sub(r"\\p\{(\w+)\}", lambda category: _RANGES[category[1]], PATTERNS[pattern])
        self._words = re.compile(expression, re.ASCII)
        self._ids = ids

    def read(self, text: str) -> list[int]:
        """Return token ids of a text without special tokens."""
        spans = (word.span() for word in self._words.finditer(text.translate(_KINDS)))
        return [i for start, end in spans for i in self._merged(text[start:end].encode(errors="replace"))]

    def _merged(self, word: bytes) -> list[int]:
        """Return token ids of a word: its own where it is a token, else those of its bytes after all merges."""
        if word in self._ids:
            return [self._ids[word]]
        ends = list(range(1, len(word) + 1))  # of the part that starts at a byte; 0 where none does
        before = list(range(-1, len(word)))  # where the part before the one at a byte starts
        pairs: list[tuple[int, int, int]] = []  # id, start and end of what two parts would become

        def offer(start: int, end: int) -> None:
            if (merged := self._ids.get(word[start:end])) is not None:
                heapq.heappush(pairs, (merged, start, end))

        for start in range(len(word) - 1):
            offer(start, start + 2)
        while pairs:
            _, start, end = heapq.heappop(pairs)
            middle = ends[start]
            if not 0 < middle < end or ends[middle] != end:
                continue  # one of the parts has been merged with another since
            ends[start], ends[middle] = end, 0
            if end < len(word):
                before[end] = start
                offer(start, ends[end])
            if start > 0:
                offer(before[start], end)
        return [self._ids[word[start:end]] for start, end in enumerate(ends) if end]


class _Kinds(dict[int, str]):
    """What stands for a character, by its number; filled as texts have them."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code > 127:
            other = "\v" if code == 0x85 else "!"  # a control character that is a space
            character = _STANDS_FOR.get(unicodedata.category(character), other)
        self[code] = character
        return character


_KINDS = _Kinds()
