"""What a model thinks before its answer, told from the answer: `<think>…</think>` in front of it.

That is how Qwen, DeepSeek and most others write it. Some templates begin the thought themselves, so that an answer is
within it from its first character.
"""

from typing import NamedTuple

from llama.marks import begun

OPEN, CLOSE = "<think>", "</think>"


class Parts(NamedTuple):
    """The next bit of an answer."""

    thought: str
    said: str


class Thoughts:
    """Splits one answer as it comes."""

    def __init__(self, within: bool, goes_on: bool = False) -> None:
        """Begin `within` a thought, or where one may open; one that `goes_on` has begun before, and opens none."""
        self.within = within
        self._opens = not (within or goes_on)  # whether a thought may still be opened
        self._fresh = within and not goes_on  # whether nothing has been written since a mark
        self._held = ""  # may be part of a mark, or white space beside one

    def take(self, text: str, last: bool = False) -> Parts:
        """Split what has come; what may yet be a part of a mark is held back until it is known, or is the `last`."""
        thought = said = ""
        text, self._held = self._held + text, ""
        if self._opens:
            text = self._opened(text, last)
        if self.within:
            thought, text = self._closed(text, last)
        if not self.within and not self._opens:
            said = self._unpadded(text)
        return Parts(thought, said)

    def _opened(self, text: str, last: bool) -> str:
        """Return what follows a mark that opens a thought; all, where there is none."""
        bare = text.lstrip()
        if bare.startswith(OPEN):
            self.within, self._opens, self._fresh = True, False, True
            return bare.removeprefix(OPEN)
        if OPEN.startswith(bare) and not last:
            self._held = text
            return ""
        self._opens = False
        return text

    def _closed(self, text: str, last: bool) -> tuple[str, str]:
        """Return what is still thought, and what follows the mark that closes it."""
        text = self._unpadded(text)
        thought, found, rest = text.partition(CLOSE)
        if found:
            self.within, self._fresh = False, True
            return thought.rstrip(), rest
        if last:
            return text.rstrip(), ""
        thought = text[: len(text) - begun(text, CLOSE)].rstrip()
        self._held = text[len(thought) :]
        return thought, ""

    def _unpadded(self, text: str) -> str:
        """Return a text less the white space that follows a mark."""
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        return text


def opens(text: str) -> bool:
    """Return whether a text ends within a thought: it opens one later than it closes any."""
    return text.rfind(OPEN) > text.rfind(CLOSE)
