"""What stages leave for one another as JSON: frozen classes, each with one reader.

Of a class with a `schema_version` a reader takes records with that number alone, and says of any other that another
version made it. A key that no field has, or a field that is missing, is refused with its name.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from common.errors import UserError
from common.files import write_json
from pipeline.core.config import ModelSettings


class UnreadableError(UserError):
    """A record that is there and cannot be read: another version's, or damaged."""


class Record(BaseModel):
    """A part of a record; equal if all fields are."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    made_by: ClassVar[str] = "the stage"  # that writes it

    @classmethod
    def parse(cls, content: object, place: str) -> Self:
        """Return the record that was read from `place`.

        Raises:
            UnreadableError: it is another version's, or damaged.
        """
        known = cls.model_fields.get("schema_version")
        found = content.get("schema_version") if isinstance(content, dict) else None
        if known is not None and isinstance(content, dict) and found != known.default:
            schema = "unnumbered" if found is None else repr(found)
            raise UnreadableError(
                f"{place} was made by another version of Tunesmith (schema {schema}, this one reads {known.default}); "
                f"make it again: `dvc repro -sf {cls.made_by}`"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the whole"
            what = fault["msg"].removeprefix("Value error, ")
            raise UnreadableError(
                f"{place} does not hold what it should: {where}: {what[0].lower()}{what[1:]}; make it again: "
                f"`dvc repro -sf {cls.made_by}`"
            ) from error

    @classmethod
    def parse_text(cls, text: str, place: str) -> Self:
        """Return the record whose JSON was read from `place`.

        Raises:
            UnreadableError: it is another version's, or damaged.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UnreadableError(f"{place} is no JSON; make it again: `dvc repro -sf {cls.made_by}`") from error
        return cls.parse(content, place)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record in a file.

        Raises:
            UserError: it is missing.
            UnreadableError: it is another version's, or damaged.
        """
        if not path.is_file():
            raise UserError(f"{path} is missing; run `dvc repro {cls.made_by}` first")
        return cls.parse_text(path.read_text(encoding="utf-8", errors="replace"), str(path))

    def write(self, path: Path) -> None:
        """Write it as JSON, at once; what was not measured is left out."""
        write_json(path, self.tree())

    def tree(self) -> dict[str, Any]:
        """Return it as plain mappings and lists, without the fields that were not given."""
        return self.model_dump(mode="json", exclude_unset=True)


class Location(Record):
    """Where a model is: a folder, a name on the hub, or a package's; and its commit or hash."""

    path: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class TunedBase(ModelSettings):
    """The base of a training: its settings, and the digest of its files."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    digest: str | None = None


class Lineage(Record):
    """Where an adapter comes from: models/adapter/lineage.json."""

    made_by: ClassVar[str] = "train"

    fingerprint: str
    mlflow_run: str | None
    base: TunedBase


Of = Literal["tuned", "base", "adapter"]  # what a file holds


class ManifestFile(Record):
    """An exported file; an adapter alone has no figures, and of others null is no finite number."""

    file: str  # its name
    type: str
    of: Of
    bytes: int
    sha256: str
    kl: float | None = None  # nats
    top_1: float | None = None  # a share
    perplexity: float | None = None

    @model_validator(mode="after")
    def _was_checked(self) -> Self:
        if self.of != "adapter" and not {"kl", "top_1", "perplexity"} <= self.model_fields_set:
            raise ValueError(f"{self.file} has no checks")
        return self

    @property
    def key(self) -> str:
        """What it is called among the figures of an evaluation."""
        return self.type if self.of == "tuned" else f"{self.of}-{self.type}"


class Manifest(Record):
    """What export has made and checked: models/gguf/manifest.json."""

    made_by: ClassVar[str] = "export"

    base: Location
    fingerprint: str
    adapter: str  # digest of the folder that the files were made of
    llama_cpp_python: str
    method: str  # of training
    files: tuple[ManifestFile, ...]

    @property
    def models(self) -> dict[str, ManifestFile]:
        """The files that are models, by their keys, in order."""
        return {file.key: file for file in self.files if file.of != "adapter"}


LEARNT_FROM = ("train", "validation")  # of the splits


class SplitReport(Record):
    """A split of the data: its rows, and a digest of them in their order."""

    rows: int
    sha256: str


class SourceReport(Record):
    """A file or data set that was read; `dropped` has rows by reason."""

    file: str
    format: str
    rows: int
    usable: int
    dropped: dict[str, int]


class QuestionReport(Record):
    """What became of the questions."""

    given: int
    in_training: int
    kept: int
    groups: dict[str, int]


class PrepareReport(Record):
    """What prepare has read and written: reports/prepare.json."""

    made_by: ClassVar[str] = "prepare"

    data: str
    revision: str | None
    files: tuple[SourceReport, ...]
    not_read: dict[str, str]  # reasons, by name
    duplicates: int
    seed: int
    splits: dict[str, SplitReport]
    questions: QuestionReport
    characters: dict[str, dict[str, int]]  # messages by role and length

    @property
    def learnt_digest(self) -> str:
        """The digest of what is learnt from: the splits that training and validation read."""
        return "+".join(self.splits[name].sha256[:16] for name in LEARNT_FROM)


class TrainReport(Record):
    """What a training came to, over all its sessions: reports/train.json (training/report.py says what each is)."""

    made_by: ClassVar[str] = "train"

    fingerprint: str | None = None
    engine: str | None = None
    attention: str | None = None
    steps: int | None = None
    epochs: float | None = None
    best_step: int | None = None
    sessions: int | None = None
    seconds: float | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    tokens: int | None = None
    steady_tokens_per_second: float | None = None
    outside_share: float | None = None
    startup_seconds: float | None = None
    micro_batch: int | None = None
    effective_batch: int | None = None
    processes: int | None = None
    peak_memory_gib: float | None = None
    peak_memory_training_gib: float | None = None
    peak_memory_share: float | None = None
    peak_memory_training_share: float | None = None
    arithmetic_share: float | None = None
    trainable_parameters: int | None = None
    trainable_share: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
