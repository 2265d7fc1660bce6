"""The figures of reports/data.json."""

from typing import ClassVar

from pydantic import model_validator

from pipeline.core.records import Count, Record, Share

Quantiles = dict[str, Count]  # median, 90%, 99%, longest


class Step(Record):
    """What a step of prepare leaves, and what it takes out, by reason."""

    name: str
    rows: Count  # left
    left_out: Count
    reasons: dict[str, Count]
    added: Count = 0  # by weights above 1


class RoleFigures(Record):
    """The messages of a role."""

    messages: Count
    characters: Quantiles
    words: Quantiles


class RepeatedAnswer(Record):
    """An answer that stands several times, and in how many places."""

    answer: str  # its beginning
    times: Count


class AnswerFigures(Record):
    """What is learnt: the assistant's turns, or plain texts."""

    answers: Count
    different: Count
    short: Count  # of three words at most
    most: tuple[RepeatedAnswer, ...]


class SplitFigures(Record):
    """A split of data/prepared; languages, topics and quality are of its first rows, which are a draw."""

    rows: Count
    roles: dict[str, RoleFigures]
    answers: AnswerFigures
    sources: dict[str, Count]  # rows
    drawn: Count  # rows of which these are told
    languages: dict[str, Count]
    topics: dict[str, Count]
    quality: dict[str, Count]  # rows by the score of their poorest answer


class TokenFigures(Record):
    """Tokens of the first rows of train, as the model reads them."""

    model: str
    conversations: Count
    max_length: Count
    cut: Count  # conversations, at max_length
    learnt: Share  # of the tokens
    learnt_cut: Share  # of what is learnt
    lengths: Quantiles
    fitting: dict[str, Count]  # the length that cuts so large a share at most
    refused: dict[str, Count]  # conversations, by what the template says
    control_tokens: dict[str, Count]  # in words


class GroupFigures(Record):
    """Rows that hang together: groups by how many rows they have."""

    sizes: dict[str, Count]
    largest: Count


class DataReport(Record):
    """What the page shows in figures."""

    made_by: ClassVar[str] = "data_report"

    data: str
    steps: tuple[Step, ...]
    splits: dict[str, SplitFigures]
    tokens: TokenFigures | None
    groups: dict[str, GroupFigures]

    @model_validator(mode="after")
    def _each_step_has_what_the_one_before_left(self) -> "DataReport":
        for before, step in zip(self.steps, self.steps[1:], strict=False):
            if before.rows + step.added != step.rows + step.left_out:
                raise ValueError(f"{step.name}: {before.rows:,} less {step.left_out:,} are not {step.rows:,}")
        return self

    @property
    def numbers(self) -> dict[str, object]:
        """Figures to compare runs by: rows by split and what was left out by step, answers, tokens."""
        train, tokens = self.splits["train"], self.tokens
        return {
            "rows_read": self.steps[0].rows,
            "left_out": {step.name.replace(" ", "_"): step.left_out for step in self.steps[1:]},
            "rows": {name: split.rows for name, split in self.splits.items()},
            "different_answers": train.answers.different / max(train.answers.answers, 1),
            "short_answers": train.answers.short / max(train.answers.answers, 1),
            "tokens": {name.rstrip("%"): length for name, length in tokens.lengths.items()} if tokens else {},
            "cut": tokens.cut / max(tokens.conversations, 1) if tokens else None,
        }
