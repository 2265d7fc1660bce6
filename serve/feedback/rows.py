"""What records are good for: rows to train on, preferences, a table of the models."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from serve.feedback.records import (
    REASONS,
    Answer,
    AnswerRecord,
    ComparisonRecord,
    Record,
    Timings,
    Verdict,
    to_json,
)

COLUMNS = (
    *("model", "judged", "good", "bad", "share good"),
    *("won", "lost", "tied", "both bad"),
    *("first token", "tokens/s", "most frequent reasons"),
)


def training_rows(records: Iterable[Record]) -> tuple[list[bytes], Counter[str]]:
    """Return the conversations whose answer was found good or won, a JSON line each.

    And what was left out how often.
    """
    judged: dict[bytes, list[Verdict]] = defaultdict(list)
    for record in records:
        for answer, verdict in _verdicts(record):
            turn = {"role": "assistant", "content": answer.text}
            judged[to_json({"messages": [*record.messages, turn]})].append(verdict)
    good = {row: verdicts for row, verdicts in judged.items() if "good" in verdicts}
    rows = [row for row, verdicts in good.items() if "bad" not in verdicts]
    duplicates = sum(len(good[row]) - 1 for row in rows)
    return rows, Counter({"contradicted": len(good) - len(rows), "duplicates": duplicates})


def preference_rows(records: Iterable[Record]) -> tuple[list[bytes], Counter[str]]:
    """Return the answer that won and the one that lost, of each vote, a JSON line each.

    And what was left out how often.
    """
    votes: Counter[tuple[bytes, str, str]] = Counter()
    for record in records:
        if isinstance(record, ComparisonRecord) and record.vote in ("left", "right"):
            chosen, rejected = _won_and_lost(record)
            if chosen.text != rejected.text:
                votes[to_json(list(record.messages)), chosen.text, rejected.text] += 1
    kept = [vote for vote in votes if (vote[0], vote[2], vote[1]) not in votes]
    rows = [
        to_json({"messages": json.loads(messages), "chosen": chosen, "rejected": rejected})
        for messages, chosen, rejected in kept
    ]
    duplicates = sum(votes[vote] - 1 for vote in kept)
    return rows, Counter({"contradicted": len(votes) - len(kept), "duplicates": duplicates})


def summary(records: Iterable[Record]) -> str:
    """Return a table with a line for each model."""
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for record in records:
        if isinstance(record, AnswerRecord):
            tallies[record.answer.model.label].add(record.answer, record.verdict or "", record.reasons)
        else:  # whose reasons may be about either answer
            for answer, other, place in ((record.left, "right", "left"), (record.right, "left", "right")):
                result = {place: "won", other: "lost"}.get(record.vote or "", record.vote or "")
                tallies[answer.model.label].add(answer, result, ())
    return _table([COLUMNS, *sorted(tally.row(label) for label, tally in tallies.items())])


@dataclass
class _Tally:
    """What was said of one model."""

    results: Counter[str] = field(default_factory=Counter)  # verdicts and votes
    reasons: Counter[str] = field(default_factory=Counter)
    timings: list[Timings] = field(default_factory=list)

    def add(self, answer: Answer, result: str, reasons: Sequence[str]) -> None:
        self.results[result] += 1
        self.reasons.update(reasons)
        if answer.timings:
            self.timings.append(answer.timings)

    def row(self, label: str) -> list[str]:
        good, bad = self.results["good"], self.results["bad"]
        votes = [str(self.results[result]) for result in ("won", "lost", "tie", "both_bad")]
        labels = {reason.key: reason.label for reason in REASONS}
        return [
            label,
            *(str(good + bad), str(good), str(bad)),
            f"{good / (good + bad):.0%}" if good + bad else "-",
            *votes,
            f"{fmean(timing.first_token for timing in self.timings):.2f} s" if self.timings else "-",
            f"{fmean(timing.tokens_per_second for timing in self.timings):.1f}" if self.timings else "-",
            ", ".join(f"{labels.get(key, key)} {count}" for key, count in self.reasons.most_common(3)) or "-",
        ]


def _verdicts(record: Record) -> Iterator[tuple[Answer, Verdict]]:
    """Yield what a record says of which answer. To lose a vote is not to be bad."""
    if isinstance(record, AnswerRecord):
        if record.verdict:
            yield record.answer, record.verdict
    elif record.vote == "both_bad":
        yield from ((record.left, "bad"), (record.right, "bad"))
    elif record.vote in ("left", "right"):
        yield _won_and_lost(record)[0], "good"


def _won_and_lost(record: ComparisonRecord) -> tuple[Answer, Answer]:
    return (record.left, record.right) if record.vote == "left" else (record.right, record.left)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return columns of one width each, numbers to the right, the first and the last column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
