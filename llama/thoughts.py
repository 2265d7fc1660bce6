"""What a model thinks before its answer, told from the answer as it comes, by the marks that its template has for it.

Most write one thought and then what they say. gpt-oss writes messages one after the other, each with a header that says
what it is: thoughts, words or a call.
"""

import re
from typing import NamedTuple

from llama.marks import begun
from llama.thought_format import TAGS, ThoughtFormat

# In gpt-oss' headers (cookbook.openai.com/articles/openai-harmony) a tool stands on either side of the channel.
CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
RECIPIENT = re.compile(r"\bto=([^\s<]+)")
LONGEST_HEADER = 200  # characters


class Parts(NamedTuple):
    """The next bit of an answer."""

    thought: str
    said: str


class Thinking(NamedTuple):
    """How an answer's thoughts are told from what it says."""

    form: ThoughtFormat = TAGS  # of the model
    within: bool = False  # whether the answer begins within a thought
    goes_on: bool = False  # whether it goes on with a beginning, and so opens none


class Thoughts:
    """Splits one answer as it comes."""

    def __init__(self, thinking: Thinking) -> None:
        """Begin it."""
        form = thinking.form
        self._open, self._close, self._lead, self._ends = form.open, form.close, form.lead, form.ends
        self.within = thinking.within
        self._at_mark = not (thinking.within or thinking.goes_on)  # whether one may come
        self._fresh = thinking.within and not thinking.goes_on  # whether nothing has been written since a mark
        self._held = ""  # may be part of a mark, or white space beside one

    def take(self, text: str, last: bool = False) -> Parts:
        """Split what has come; what may yet be a part of a mark is held back until it is known, or is the `last`."""
        thought = said = ""
        self._held += text
        while self._held:
            before = len(self._held), self.within, self._at_mark
            if self._at_mark:
                said += self._marked(last)
            elif self.within:
                thought += self._thought(last)
            else:
                said += self._said(last)
            if before == (len(self._held), self.within, self._at_mark):
                break
        return Parts(thought, said)

    def _marked(self, last: bool) -> str:
        """Take the mark that a thought or an answer begins with, where there is one; return the header of a call."""
        bare = self._held.lstrip()
        marks = [mark for mark in (self._open, self._lead) if mark]
        if found := next((mark for mark in marks if bare.startswith(mark)), None):
            self._begin(bare.removeprefix(found), within=found == self._open)
        elif self._may_be_header(bare) and MESSAGE in bare:
            header, _, rest = bare.partition(MESSAGE)
            tool = RECIPIENT.search(header)
            self._begin(rest, within=header.startswith(f"{CHANNEL}analysis") and not tool)
            if tool:
                self._fresh = False
                return f"to={tool[1]}{CHANNEL}commentary json{MESSAGE}"  # as the template writes it
        elif last or not self._may_be_mark(bare, marks):
            self._at_mark = False
        return ""

    def _may_be_mark(self, bare: str, marks: list[str]) -> bool:
        return any(mark.startswith(bare) for mark in marks) or (self._may_be_header(bare) and MESSAGE not in bare)

    def _may_be_header(self, bare: str) -> bool:
        begins = any(bare.startswith(mark) or mark.startswith(bare) for mark in (CHANNEL, "to="))
        return self._lead.startswith(CHANNEL) and begins and len(bare.partition(MESSAGE)[0]) < LONGEST_HEADER

    def _begin(self, rest: str, within: bool) -> None:
        self._held, self.within, self._at_mark, self._fresh = rest, within, False, True

    def _thought(self, last: bool) -> str:
        """Return what is still thought, up to the mark that closes it."""
        text = self._unpadded()
        thought, found, rest = text.partition(self._close)
        if found:
            self._closed(rest)
        elif last:
            self._held = ""
        else:
            thought = text[: len(text) - begun(text, self._close)].rstrip()
            self._held = text[len(thought) :]
        return thought.rstrip()

    def _said(self, last: bool) -> str:
        """Return what is said; up to the next message, where a model writes several."""
        text = self._unpadded()
        for end in self._ends:
            text = text.replace(end, "")
        if not self._lead.startswith(CHANNEL):
            free = len(text) - max((0 if last else begun(text, end) for end in self._ends), default=0)
            self._held = text[free:]
            return text[:free]
        said, found, rest = text.partition(self._close)
        if found:
            self._closed(rest)
            return said
        free = len(text) - (0 if last else begun(text, self._close))
        self._held = text[free:]
        return text[:free]

    def _closed(self, rest: str) -> None:
        self._held, self.within, self._fresh = rest, False, True
        self._at_mark = bool(self._lead)

    def _unpadded(self) -> str:
        """Return what is held less the white space that follows a mark."""
        if self._fresh:
            self._held = self._held.lstrip()
            self._fresh = not self._held
        return self._held
