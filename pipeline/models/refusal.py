"""Messages as chat templates take them, and what they do not take."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

NAMED = 60  # characters of what a row says


class RefusedError(Exception):
    """A template, or a conversation under it, that cannot be learnt from; its only argument says why."""


class Refusals:
    """The rows of a split that a chat template does not take."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # by reason: which row, and how it begins

    def add(self, number: int, messages: Sequence[Message], reason: str) -> None:
        """Add a row by its number, from 1."""
        if reason not in self._first:
            asked = next((message["content"] for message in messages if message["role"] == "user"), "")
            self._first[reason] = f"row {number}, {' '.join(asked.split())[:NAMED]!r}"
        self._reasons[reason] += 1

    def total(self) -> int:
        """Return how many there are."""
        return self._reasons.total()

    def __str__(self) -> str:
        (reason, _), more = self._reasons.most_common(1)[0], " and other reasons" * (len(self._reasons) > 1)
        count = self.total()
        first = f"{'the first: ' if count > 1 else ''}{self._first[reason]}"
        return f"{count} refused by the chat template ({reason}{more}; {first})"
