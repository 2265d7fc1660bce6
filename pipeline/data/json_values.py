"""Values of JSON in a text, one after another or in a list, read as they are asked for."""

import json
from typing import TextIO

from pipeline.data.lines import KEPT, BadLine, Row, Rows, is_utf8, one_line

CHUNK = 2**20  # characters
NEAR_THE_END = 16  # characters; within them an error of JSON may be that the rest is not read yet
DECODER = json.JSONDecoder()


def read_values(text: TextIO) -> Rows:
    """Yield the values of a list, or one after another; after a bad one, from the next line that begins an object."""
    values = _Values(text)
    in_list = values.next_character() == "["
    if in_list:
        values.take(1)
    while values.next_character(",]" if in_list else ""):
        line = values.line
        try:
            yield Row(line, values.value())
        except (ValueError, RecursionError) as error:
            begins, reason = values.text(), error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
            rest = "" if values.skip_to_object() else "; nothing after it is read"
            yield BadLine(line, f"not valid JSON ({reason}){rest}", begins)
    if in_list and not values.closed:
        yield BadLine(values.line, "not valid JSON (the list does not end); the file may be cut short", "")


class _Values:
    """A text of JSON values, of which no more is held than the one that is read."""

    def __init__(self, text: TextIO) -> None:
        self._file, self._held, self._at, self._ended = text, "", 0, False
        self.line = 1
        self.closed = False  # whether a list has ended

    def next_character(self, between: str = "") -> str:
        """Skip whitespace and what may stand between two values; return the next character, or nothing at the end."""
        while True:
            while self._at < len(self._held) and (character := self._held[self._at]) in between + " \t\r\n\ufeff":
                self.closed |= character == "]"
                self.take(1)
            if self._at < len(self._held) or not self._read():
                return self._held[self._at : self._at + 1]

    def value(self) -> object:
        """Return the next value.

        Raises:
            ValueError: there is none, and the place is where it would begin; or one that Python does not hold.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._held) - NEAR_THE_END
                if not cut or not self._read():
                    raise
                continue
            if end == len(self._held) and self._read():  # a number may go on
                continue
            if not is_utf8(self._held[self._at : end]):
                self.take(end - self._at)
                raise ValueError("not UTF-8")
            self.take(end - self._at)
            return value

    def take(self, characters: int) -> None:
        """Go on by some characters."""
        self.line += self._held.count("\n", self._at, self._at + characters)
        self._at += characters

    def text(self) -> str:
        """Return what comes next, or its beginning."""
        return self._held[self._at : self._at + KEPT]

    def skip_to_object(self) -> bool:
        """Go on to the next line that begins with an object; return whether there is one."""
        while True:
            if (found := self._held.find("\n{", self._at)) >= 0:
                self.take(found + 1 - self._at)
                return True
            self.take(max(0, len(self._held) - 1 - self._at))
            if not self._read():
                self.take(len(self._held) - self._at)
                return False

    def _read(self) -> bool:
        """Read as much again as is held; return whether there was more."""
        if self._ended:
            return False
        more = self._file.read(max(CHUNK, len(self._held) - self._at))
        self._held, self._at = self._held[self._at :] + more, 0
        self._ended = not more
        return bool(more)
