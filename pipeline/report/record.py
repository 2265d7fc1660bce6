"""The record of an evaluation: what was measured (reports/measurements.json), and that with its verdict and history.

The second is reports/evaluation.json, which all that is shown is made of. Each has SCHEMA's number.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.core.records import (
    Amount,
    Count,
    Location,
    ManifestFile,
    Perplexity,
    PrepareReport,
    Record,
    Share,
    TrainReport,
)

SCHEMA = 2  # 1 had no number
# Tokens after the first below which no speed is told. On two busy cores, 90% of a 135M model's runs of so many tokens
# were within 10% of its speed over all and the worst 19% off; of runs of 8 tokens, 19% and 58%.
SPEED_TOKENS = 64
LENGTHS = ("reference", "base", "tuned")  # whose replies are counted: the test split's, and the models'
# By group of the configuration, the settings that a model's card reads. All others differ from version to version.
CARD_SETTINGS: dict[str, tuple[str, ...]] = {
    "export": (),
    "evaluate": (),
    "train": (
        *("lora", "lr", "scheduler", "warmup_ratio", "weight_decay", "optimizer", "effective_batch", "max_length"),
        "seed",
    ),
    "data": ("name", "source", "path"),
}


def require_bounds(name: str, low: float | None, high: float | None) -> None:
    """Refuse an interval that ends before it begins.

    Raises:
        ValueError: its bounds are the wrong way round.
    """
    if low is not None and high is not None and low > high:
        raise ValueError(f"the bounds of {name} are the wrong way round, {low:g} and {high:g}")


def require_both_bounds(name: str, value: float | None, low: float | None, high: float | None) -> None:
    """Refuse a finite figure of which one bound alone is known: both are finite too, or rest on too little.

    Raises:
        ValueError: there is one bound alone.
    """
    if value is not None and (low is None) != (high is None):
        raise ValueError(f"{name} has one bound alone")


class TextFigures(Record):
    """What replies are like (evaluation/text_statistics.py)."""

    mean_tokens: Amount | None
    distinct_1: Share | None
    distinct_2: Share | None
    repetition: Share | None
    refusals: Share | None = None
    language_kept: Share | None = None


class GeneralFigures(Record):
    """A model's loss on a set of general texts, and by how many nats a token it is above the base's; with bounds."""

    texts: Count
    loss: float | None
    loss_low: float | None
    loss_high: float | None
    forgetting: float | None = None  # not there for the base
    forgetting_low: float | None = None
    forgetting_high: float | None = None

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        require_bounds("loss", self.loss_low, self.loss_high)
        require_bounds("forgetting", self.forgetting_low, self.forgetting_high)
        return self


class ModelFigures(Record):
    """What was measured of a model: null is no finite number, and a field that was not asked for is not there.

    Loss is in nats a token; `_low` and `_high` bound the 95% confidence interval.
    """

    loss: float | None
    loss_low: float | None = None
    loss_high: float | None = None
    perplexity: Perplexity | None
    perplexity_low: Perplexity | None = None
    perplexity_high: Perplexity | None = None
    samples_per_second: Amount | None = None
    accuracy: Share | None = None
    accuracy_low: Share | None = None
    accuracy_high: Share | None = None
    accuracy_by_group: dict[str, Share] = Field(default_factory=dict)
    accuracy_by_task: dict[str, Share] = Field(default_factory=dict)
    preference_accuracy: Share | None = None  # of held-out pairs, whose chosen answer is likelier a token
    preference_accuracy_low: Share | None = None
    preference_accuracy_high: Share | None = None
    pairs: Count | None = None  # that are held out
    pairs_won: Count | None = None  # in which it alone of it and the base finds the chosen answer likelier
    pairs_lost: Count | None = None
    texts: TextFigures | None = None
    tasks: dict[str, float] = Field(default_factory=dict)  # of lm-evaluation-harness
    general: dict[str, GeneralFigures] = Field(default_factory=dict)  # by set

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        require_bounds("loss", self.loss_low, self.loss_high)
        require_bounds("perplexity", self.perplexity_low, self.perplexity_high)
        require_bounds("accuracy", self.accuracy_low, self.accuracy_high)
        require_bounds("preference_accuracy", self.preference_accuracy_low, self.preference_accuracy_high)
        return self

    @model_validator(mode="after")
    def _has_both_bounds_or_none(self) -> Self:
        require_both_bounds("loss", self.loss, self.loss_low, self.loss_high)
        # Not perplexity: of a loss above 709 it is infinite, and so can one bound be.
        require_both_bounds("accuracy", self.accuracy, self.accuracy_low, self.accuracy_high)
        return self

    @model_validator(mode="after")
    def _accuracy_is_of_groups_and_tasks(self) -> Self:
        if len({self.accuracy is None, not self.accuracy_by_group, not self.accuracy_by_task}) > 1:
            raise ValueError("of accuracy, accuracy_by_group and accuracy_by_task one is missing")
        return self


class FileFigures(ModelFigures):
    """The same of a GGUF file, with what its export measured, what quantization changed, and what serving it takes."""

    of: Literal["tuned", "base"]
    bytes: Count
    memory_bytes: Count | None = None  # of the engine at the server's own settings
    kl: float | None
    top_1: Share | None
    flips: Share | None = None  # of the questions, right in it or in the unquantized one alone (Dutta et al. 2024)
    flips_lost: Count | None = None  # right in the unquantized one
    flips_won: Count | None = None
    task_flips: dict[str, Share] = Field(default_factory=dict)  # of the questions of lm-evaluation-harness's tasks
    tokens_per_second: Amount | None
    prompt_tokens_per_second: Amount | None = None
    first_token_seconds: Amount | None
    answer_seconds: Amount | None

    def is_of(self, file: ManifestFile) -> bool:
        """Return whether they are of the export that a file stands in the manifest of."""
        return (self.bytes, self.kl, self.top_1) == (file.bytes, file.kl, file.top_1)


class Gain(Record):
    """By how many nats a token the tuned model's loss is below the base's; its 95% confidence interval."""

    loss: float | None
    low: float | None
    high: float | None

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        require_bounds("gain", self.low, self.high)
        return self

    @model_validator(mode="after")
    def _has_both_bounds_or_none(self) -> Self:
        require_both_bounds("gain", self.loss, self.low, self.high)
        return self


class Agreement(Record):
    """How often the judge says of two answers what a visitor voted blind; a 95% interval, and kappa (Cohen 1960)."""

    votes: Count
    unclear: Count  # of them, of which the judge said nothing that can be read
    agreed: Share | None
    agreed_low: Share | None = None
    agreed_high: Share | None = None
    kappa: float | None = None

    @model_validator(mode="after")
    def _has_both_bounds_or_none(self) -> Self:
        require_bounds("agreed", self.agreed_low, self.agreed_high)
        require_both_bounds("agreed", self.agreed, self.agreed_low, self.agreed_high)
        return self


class Judgement(Record):
    """What a judge says of the tuned model's replies beside the base's (pipeline/judging).

    `won` is the share of pairs that tuned won, a tie as half; its bounds hold at every number of pairs.
    """

    model: str
    outcomes: tuple[Literal["tuned", "base", "tie", "unclear"], ...]  # of the prompts, and then of questions
    by_place: Count  # of the ties, in which the judge took the same place both times
    won: Share | None
    won_low: Share | None = None
    won_high: Share | None = None
    agreement: Agreement | None = None

    @model_validator(mode="after")
    def _has_both_bounds_or_none(self) -> Self:
        require_bounds("won", self.won_low, self.won_high)
        require_both_bounds("won", self.won, self.won_low, self.won_high)
        return self


class ShownAnswer(Record):
    """An answer to one of the prompts."""

    reply: str
    tokens: Count
    first_token_seconds: Amount | None
    seconds: Amount | None
    tokens_per_second: Amount | None


class Point(Record):
    """Of the loss curve; null where the step has only the other one."""

    step: Count
    loss: float | None
    validation_loss: float | None


class Step(Record):
    """What was known of a check's figure after so many rows or questions."""

    rows: Count
    figure: float
    low: float
    high: float


class Check(Record):
    """One threshold: passed, failed, or null where too little was measured to tell, and `missing` is how much.

    Of a figure that rows or questions decide: `of` which it is, its bounds, after how many `rows` of them it was
    decided, or could not be, and how the bounds closed in.
    """

    name: str
    what: str
    figure: float | None
    limit: float | None
    passed: bool | None
    missing: Count | None = None
    of: Literal["test conversation", "question", "general text"] | None = None
    rows: Count | None = None
    low: float | None = None
    high: float | None = None
    steps: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        require_bounds(self.name, self.low, self.high)
        return self


class Verdict(Record):
    """All checks; passed if each is."""

    passed: bool
    checks: Annotated[tuple[Check, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _passed_if_each_check_is(self) -> Self:
        if self.passed != all(check.passed for check in self.checks):
            raise ValueError("passed: its checks say otherwise")
        return self


class Measurements(Record):
    """What evaluate has measured: reports/measurements.json."""

    made_by: ClassVar[str] = "evaluate"

    schema_version: int = SCHEMA
    model: str
    fingerprint: str
    base: Location
    mlflow_run: str | None
    rows: Count
    tokens: Count
    questions: Count
    base_model: ModelFigures
    tuned_model: ModelFigures
    gain: Gain
    gguf: dict[Annotated[str, Field(pattern=r"^(base-)?\w+$")], FileFigures]  # by ManifestFile.key
    prompts: tuple[str, ...]
    answers: dict[str, tuple[ShownAnswer, ...]]  # by model, one for each prompt
    lengths: dict[str, tuple[Count, ...]]  # tokens of replies, by LENGTHS
    judgement: Judgement | None = None
    settings: dict[str, dict[str, Any]]  # by group of the configuration

    @model_validator(mode="after")
    def _files_are_named_by_what_they_hold(self) -> Self:
        for name, file in self.gguf.items():
            if name.startswith("base-") != (file.of == "base"):
                raise ValueError(f"gguf.{name}: of is {file.of}, which its name is not of")
        return self

    @model_validator(mode="after")
    def _all_were_asked_the_same_questions(self) -> Self:
        for name, figures in self.models.items():
            if (figures.accuracy is None) == bool(self.questions):
                found = "no" if figures.accuracy is None else "an"
                raise ValueError(f"questions: {self.questions:,} of them, and {name} has {found} accuracy")
            for kind in ("accuracy_by_group", "accuracy_by_task"):
                if getattr(figures, kind).keys() != getattr(self.base_model, kind).keys():
                    raise ValueError(f"{kind}: {name} has others than base")
        return self

    @model_validator(mode="after")
    def _base_and_tuned_did_the_same_tasks(self) -> Self:
        asked = {name: figures.tasks for name, figures in self.models.items() if figures.tasks}  # files, if there are
        first = next(iter(asked), "")
        for name, tasks in asked.items():
            if tasks.keys() != asked[first].keys():
                raise ValueError(f"tasks: {name} has others than {first}")
        if len({name.startswith("base") for name in asked}) == 1:
            raise ValueError(f"tasks: {first} has some, and nothing to hold them against")
        return self

    @model_validator(mode="after")
    def _all_were_measured_on_the_same_general_texts(self) -> Self:
        texts = {name: found.texts for name, found in self.base_model.general.items()}
        for name, figures in self.models.items():
            if {kind: found.texts for kind, found in figures.general.items()} != texts:
                raise ValueError(f"general: {name} has others than base")
        return self

    @model_validator(mode="after")
    def _every_model_answers_every_prompt(self) -> Self:
        if self.answers.keys() != self.models.keys():
            raise ValueError(f"answers: of {', '.join(self.answers) or 'nobody'}, not of {', '.join(self.models)}")
        for name, answers in self.answers.items():
            if len(answers) != len(self.prompts):
                raise ValueError(f"answers.{name}: {len(answers)} of them to {len(self.prompts)} prompts")
        return self

    @model_validator(mode="after")
    def _every_reply_has_a_length(self) -> Self:
        if set(self.lengths) != set(LENGTHS):
            raise ValueError(f"lengths: of {', '.join(self.lengths) or 'nobody'}, not of {', '.join(LENGTHS)}")
        asked = self.questions + len(self.prompts)
        for name in ("base", "tuned"):
            if len(self.lengths[name]) != asked:
                raise ValueError(f"lengths.{name}: {len(self.lengths[name])} of them for {asked} replies")
        return self

    @model_validator(mode="after")
    def _settings_have_what_a_card_reads(self) -> Self:
        for group, keys in CARD_SETTINGS.items():
            if group not in self.settings:
                raise ValueError(f"settings.{group}: field required")
            if lost := [key for key in keys if key not in self.settings[group]]:
                raise ValueError(f"settings.{group}.{lost[0]}: field required")
        return self

    @model_validator(mode="after")
    def _settings_name_the_data(self) -> Self:
        data = self.settings["data"]
        named = ("name", "path") if data["source"] == "hub" else ("name",)
        if lost := [key for key in named if not isinstance(data[key], str)]:
            raise ValueError(f"settings.data.{lost[0]}: input should be a text")
        return self

    @model_validator(mode="after")
    def _settings_have_an_adapters(self) -> Self:
        if not isinstance(self.settings["train"]["lora"], dict):
            raise ValueError("settings.train.lora: input should be settings")
        return self

    @property
    def models(self) -> dict[str, ModelFigures]:
        """All that was measured, by name."""
        return {"base": self.base_model, "tuned": self.tuned_model, **self.gguf}

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

    @model_validator(mode="after")
    def _training_is_this_ones(self) -> Self:
        if self.training and self.training.fingerprint not in (None, self.fingerprint):
            raise ValueError(
                f"training.fingerprint: {self.training.fingerprint}, and all else is of {self.fingerprint}"
            )
        return self

    @model_validator(mode="after")
    def _measured_no_more_than_was_prepared(self) -> Self:
        if not self.prepared:
            return self
        rows, kept = self.prepared.splits["test"].rows, self.prepared.questions.kept
        if self.rows > rows:
            raise ValueError(f"rows: {self.rows:,} were measured, and {rows:,} prepared")
        if self.questions > kept:
            raise ValueError(f"questions: {self.questions:,} were asked, and {kept:,} prepared")
        return self
