"""What a comparison comes to: reports/compare.json."""

from typing import TypedDict

from pipeline.statistics.paired import Finding, Of


class Rule(TypedDict):
    """conf/compare's budgets, and the quality that the files were ranked by."""

    quality: str
    max_answer_seconds: float | None
    max_gguf_mb: float | None
    max_memory_mb: float | None


class ComparedGain(TypedDict):
    """By how many nats a token a model is better than its base."""

    loss: float | None
    low: float | None
    high: float | None


class ComparedRun(TypedDict):
    """A run beside its files."""

    name: str
    reference: str
    model: str
    fingerprint: str
    base: dict[str, str | None]
    mlflow_run: str | None
    rows: int
    tokens: int
    questions: int
    training: dict[str, float | None]  # by metric; empty where nothing was reported
    figures: dict[str, float | None]  # the tuned model's headlines, by metric
    gain: ComparedGain
    passed: bool
    verdict: str
    settings: dict[str, object]  # those that differ, by dotted key


class ComparedFile(TypedDict):
    """A file that the rule chose from."""

    run: str
    type: str
    figures: dict[str, object]  # by their names in the evaluation's record
    front: bool
    excluded: list[str]
    alike: list[str]  # of the front, other files that it is neither better nor worse than beyond doubt


def name_of(file: ComparedFile) -> str:
    """Return what a file is called among those that are compared."""
    return f"{file['run']} {file['type']}"


class PairedFigure(TypedDict):
    """What is said of two files in one figure, as pipeline/statistics/paired.py has it; null is unknown."""

    figure: str
    of: Of
    finding: Finding
    difference: float | None
    low: float | None
    high: float | None
    rows: int
    level: float
    margin: float
    smallest: float | None
    more: int | None
    won: int | None  # of pairs of answers
    lost: int | None


class ComparedPair(TypedDict):
    """A file against the one that is recommended, on the same rows."""

    file: str
    against: str
    finding: Finding
    figures: list[PairedFigure]
    apart: list[str]  # what could not be compared, and why


class ComparedAnswer(TypedDict):
    """Of one file."""

    file: str
    reply: str
    seconds: float | None


class ComparedPrompt(TypedDict):
    """A prompt that all runs were asked."""

    prompt: str
    answers: list[ComparedAnswer]


class Comparison(TypedDict):
    """All of it."""

    rule: Rule
    recommended: str | None
    nearest: str | None
    reason: str
    notes: list[str]
    runs: list[ComparedRun]
    files: list[ComparedFile]
    pairs: list[ComparedPair]
    answers: list[ComparedPrompt]
