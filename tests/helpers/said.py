"""What visitors say, kept as the server keeps it."""

from pathlib import Path
from typing import Any

from serve.feedback import (
    CONSENT,
    Answer,
    AnswerRecord,
    ComparisonRecord,
    FeedbackStore,
    ModelVersion,
    Record,
    Visit,
    visitor_of,
)

SMALL = ModelVersion("small", "0123", "Q4_K_M", "small.gguf", "ab" * 32)
LARGE = ModelVersion("large", "4567", "Q8_0", "large.gguf", "cd" * 32)
DIGITS = ("nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def words(number: int) -> str:
    """A number as words, so that texts differ by more than a sign."""
    return " ".join(DIGITS[int(digit)] for digit in str(number))


def of(visitor: str, conversation: str = "") -> Visit:
    return Visit(visitor_of(visitor), conversation or f"talk of {visitor}", CONSENT)


def asked(question: str) -> Any:
    return [{"role": "user", "content": question}]


def thumb(visitor: str, question: str, text: str, verdict: Any = "good", talk: str = "", **more: Any) -> AnswerRecord:
    answer = Answer(text, more.pop("model", SMALL))
    return AnswerRecord(
        messages=asked(question), sampling={}, answer=answer, verdict=verdict, visit=of(visitor, talk), **more
    )


def vote(
    visitor: str, question: str, left: str, right: str, won: Any = "left", talk: str = "", **more: Any
) -> ComparisonRecord:
    one, other = more.pop("models", (SMALL, LARGE))
    sides = {"left": Answer(left, one), "right": Answer(right, other)} | {"blind": True} | more
    return ComparisonRecord(messages=asked(question), sampling={}, vote=won, visit=of(visitor, talk), **sides)


def chatter(visitors: int, each: int = 2) -> list[Record]:
    """So many visitors, of whom each votes and judges on questions of their own."""
    found: list[Record] = []
    for number in range(visitors):
        for turn in range(each):
            question = f"What is {words(100 * number + turn)} plus one?"
            found.append(
                vote(f"v{number}", question, f"It is {words(number + 7)}.", f"Perhaps {words(turn)}, who knows.")
            )
            found.append(thumb(f"v{number}", f"Say {words(1000 + 10 * number + turn)} again!", words(number)))
    return found


def keep(folder: Path, *records: Record) -> None:
    with FeedbackStore(folder) as store:
        for record in records:
            store.add(record)
