"""The record of an evaluation: what was measured (reports/measurements.json), and that with its verdict and history.

The second is reports/evaluation.json, which all that is shown is made of. Each has SCHEMA's number.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.core.records import Location, ManifestFile, PrepareReport, Record, TrainReport

SCHEMA = 2  # 1 had no number
# Tokens after the first below which no speed is told. On two busy cores, 90% of a 135M model's runs of so many tokens
# were within 10% of its speed over all and the worst 19% off; of runs of 8 tokens, 19% and 58%.
SPEED_TOKENS = 64


class TextFigures(Record):
    """What replies are like (evaluation/text_statistics.py)."""

    mean_tokens: float | None
    distinct_1: float | None
    distinct_2: float | None
    repetition: float | None


class ModelFigures(Record):
    """What was measured of a model: null is no finite number, and a field that was not asked for is not there.

    Loss is in nats a token; `_low` and `_high` bound the 95% confidence interval.
    """

    loss: float | None
    loss_low: float | None = None
    loss_high: float | None = None
    perplexity: float | None
    perplexity_low: float | None = None
    perplexity_high: float | None = None
    samples_per_second: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    accuracy_by_group: dict[str, float] = Field(default_factory=dict)
    accuracy_by_task: dict[str, float] = Field(default_factory=dict)
    texts: TextFigures | None = None
    tasks: dict[str, float] = Field(default_factory=dict)  # of lm-evaluation-harness


class FileFigures(ModelFigures):
    """The same of a GGUF file, with what its export measured and how fast it answers."""

    of: Literal["tuned", "base"]
    bytes: int
    kl: float | None
    top_1: float | None
    tokens_per_second: float | None
    first_token_seconds: float | None
    answer_seconds: float | None

    def is_of(self, file: ManifestFile) -> bool:
        """Return whether they are of the export that a file stands in the manifest of."""
        return (self.bytes, self.kl, self.top_1) == (file.bytes, file.kl, file.top_1)


class Gain(Record):
    """By how many nats a token the tuned model's loss is below the base's; its 95% confidence interval."""

    loss: float | None
    low: float | None
    high: float | None


class ShownAnswer(Record):
    """An answer to one of the prompts."""

    reply: str
    tokens: int
    first_token_seconds: float | None
    seconds: float | None
    tokens_per_second: float | None


class Point(Record):
    """Of the loss curve; null where the step has only the other one."""

    step: int
    loss: float | None
    validation_loss: float | None


class Check(Record):
    """One threshold: passed, failed, or null where too little was measured to tell, and `missing` is how much."""

    name: str
    what: str
    figure: float | None
    limit: float | None
    passed: bool | None
    missing: int | None = None


class Verdict(Record):
    """All checks; passed if each is."""

    passed: bool
    checks: tuple[Check, ...]


class Measurements(Record):
    """What evaluate has measured: reports/measurements.json."""

    made_by: ClassVar[str] = "evaluate"

    schema_version: int = SCHEMA
    model: str
    fingerprint: str
    base: Location
    mlflow_run: str | None
    rows: int
    tokens: int
    questions: int
    base_model: ModelFigures
    tuned_model: ModelFigures
    gain: Gain
    gguf: dict[str, FileFigures]
    prompts: tuple[str, ...]
    answers: dict[str, tuple[ShownAnswer, ...]]  # by model, one for each prompt
    lengths: dict[str, tuple[int, ...]]  # tokens of replies, by model
    settings: dict[str, dict[str, Any]]  # by group of the configuration

    @property
    def tuned_files(self) -> dict[str, FileFigures]:
        """Those of the tuned model's GGUF files, by type."""
        return {kind: figures for kind, figures in self.gguf.items() if figures.of == "tuned"}


class Evaluation(Measurements):
    """That with the verdict and what led to it: reports/evaluation.json."""

    made_by: ClassVar[str] = "report"

    verdict: Verdict
    training: TrainReport | None
    curve: tuple[Point, ...]
    prepared: PrepareReport | None
