"""What stages leave for one another as JSON: frozen classes, each with one reader.

Of a class with a `schema_version` a reader takes records with that number alone, and says of any other that another
version made it. A key that no field has, or a field that is missing, is refused with its name; so are parts that
contradict each other: a validator each for what those presume who read a record.
"""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import UserError
from common.files import write_json
from pipeline.core.config import ModelSettings
from pipeline.core.paths import COMPARED

Count = Annotated[int, Field(ge=0, lt=2**63)]  # as far as a database counts
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]  # of seconds, tokens, bytes
Perplexity = Annotated[float, Field(gt=0)]


class UnreadableError(UserError):
    """A record that is there and cannot be read: another version's, or damaged."""


class Record(BaseModel):
    """A part of a record; equal if all fields are. A number is finite, null what has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    made_by: ClassVar[str] = "the stage"  # that writes it

    @classmethod
    def remedy(cls) -> str:
        """Return what to do about a file that is damaged, or another version's."""
        return f"make it again: `dvc repro -sf {cls.made_by}`"

    @classmethod
    def parse(cls, content: object, place: str) -> Self:
        """Return the record that was read from `place`.

        Raises:
            UnreadableError: it is another version's, or damaged.
        """
        schema = cls.model_fields.get("schema_version")
        found = content.get("schema_version") if isinstance(content, dict) else None
        if schema is not None and isinstance(content, dict) and found != schema.default:
            theirs = "unnumbered" if found is None else repr(found)
            raise UnreadableError(
                f"{place} was made by another version of Tunesmith (schema {theirs}, this one reads {schema.default}); "
                f"{cls.remedy()}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            said = f"{place} does not hold what it should: {first_fault(error)}; {cls.remedy()}"
            raise UnreadableError(said) from error

    @classmethod
    def parse_text(cls, text: str, place: str) -> Self:
        """Return the record whose JSON was read from `place`.

        Raises:
            UnreadableError: it is another version's, or damaged.
        """
        try:
            content = _parse_json(text)
        except (ValueError, RecursionError) as error:  # the second where brackets stand in thousands
            raise UnreadableError(f"{place} is no JSON; {cls.remedy()}") from error
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


def _parse_json(text: str) -> object:
    """Return what JSON says.

    Raises:
        ValueError: it is none, or holds what JSON has not: a number that is not finite, half a character.
    """
    content = json.loads(text, parse_float=_finite, parse_constant=_finite)
    json.dumps(content, ensure_ascii=False).encode()  # refuses half of a surrogate pair
    return content


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is not finite")
    return value


def first_fault(error: ValidationError) -> str:
    """Return the first thing that is wrong with a record, and where, in one line."""
    fault = error.errors()[0]
    place, what = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
    if not place and fault["type"] != "value_error":  # whose messages begin with a place of their own
        place = "the whole"
    return " ".join(f"{place}: {what[0].lower()}{what[1:]}".removeprefix(": ").split())


class Location(Record):
    """Where a model is: a folder, a name on the hub, or a package's; and its commit or hash."""

    path: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class TunedBase(ModelSettings):
    """The base of a training: its settings, and the digest of its files."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    digest: str | None = None

    @property
    def model(self) -> ModelSettings:
        """The settings alone."""
        return ModelSettings(**{key.name: getattr(self, key.name) for key in fields(ModelSettings)})


class Making(Record):
    """By which code and libraries something was made, and on what."""

    commit: str | None  # the last that changed the code; null outside of a repository
    uncommitted: tuple[str, ...]  # files of the code that were other ones than the commit's
    code: dict[str, str]  # digests, by package
    libraries: dict[str, str]  # versions
    machine: str  # the processor's kind, or the card's name
    processes: Count


class DataOrigin(Record):
    """What prepared data are made from, and what is learnt of them."""

    settings: dict[str, object]  # of `data`; revisions are the hub's commits
    files: dict[str, str]  # digests, by the names in the settings
    splits: dict[str, str]  # digests of what is learnt from


class Lineage(Record):
    """Where an adapter comes from: models/adapter/lineage.json."""

    made_by: ClassVar[str] = "train"

    fingerprint: str
    mlflow_run: str | None
    base: TunedBase
    data: DataOrigin | None = None  # as all that follows, of adapters since it is written
    train: dict[str, object] | None = None  # settings that digits follow from
    making: Making | None = None
    image: str | None = None  # that it was trained in, by its digest; of none: on a host
    start_adapter: str | None = None  # digest of the weights that it went on from
    ancestors: tuple[str, ...] = ()  # the trainings of those weights, the latest first

    @property
    def trainings(self) -> tuple[str, ...]:
        """All by whose data the weights have learnt, by fingerprint."""
        return self.fingerprint, *self.ancestors


Of = Literal["tuned", "base", "adapter"]  # what a file holds


class FileLineage(Record):
    """Where an exported file comes from: all that it takes to make it again, in its metadata."""

    made_by: ClassVar[str] = "export"

    schema_version: int = 1
    of: Of
    source: str  # the type of the file that quantized ones are made of
    base: TunedBase  # with the hub's commit
    merge_digest: str | None  # of the weights that an adapter is merged onto, where they are others
    importance_matrix: bool
    data: DataOrigin | None  # null for a base that no data weigh
    train: dict[str, object] | None  # null for a base, as the next three
    start_adapter: str | None = None  # digest of the weights that training went on from, if from any
    adapter: dict[str, str] | None  # digests of the trained weights' files
    trained: Making | None
    exported: Making

    @property
    def settings(self) -> dict[str, object]:
        """The settings that it was made with, by group."""
        groups = {
            "model": asdict(self.base.model),
            "data": self.data and self.data.settings,
            "train": self.train,
            "export": {"importance_matrix": self.importance_matrix},
        }
        return {group: values for group, values in groups.items() if values}


class ManifestFile(Record):
    """An exported file; an adapter alone has no figures, and of others null is no finite number."""

    file: str  # its name
    type: Annotated[str, Field(pattern=r"^\w+$")]
    of: Of
    bytes: Count
    sha256: str
    kl: float | None = None  # nats
    top_1: Share | None = None
    perplexity: Perplexity | None = None

    @model_validator(mode="after")
    def _is_in_the_manifests_folder(self) -> Self:
        if Path(self.file).name != self.file:
            raise ValueError(f"{self.file!r} is no name of a file beside the manifest")
        return self

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
    method: Annotated[str, Field(pattern="^(lora|qlora|full)$")]  # of training
    files: tuple[ManifestFile, ...]

    @model_validator(mode="after")
    def _lists_each_file_once(self) -> Self:
        for names in (Counter(file.file for file in self.files), Counter(f"{f.of} {f.type}" for f in self.files)):
            if twice := [name for name, count in names.items() if count > 1]:
                raise ValueError(f"files: {twice[0]} is listed twice")
        return self

    @property
    def models(self) -> dict[str, ManifestFile]:
        """The files that are models, by their keys, in order."""
        return {file.key: file for file in self.files if file.of != "adapter"}


LEARNT_FROM = ("train", "validation")  # of the splits


class SplitReport(Record):
    """A split of the data: its rows, and a digest of them in their order."""

    rows: Count
    sha256: str


class ComparedReport(SplitReport):
    """The comparisons of a split."""

    pairs: Count
    good: Count  # judgements
    bad: Count
    as_conversations: Count  # whose good answers are the conversations of the split, which has no others

    @model_validator(mode="after")
    def _each_is_of_a_kind(self) -> Self:
        if self.rows != (kinds := self.pairs + self.good + self.bad):
            raise ValueError(f"{self.rows:,} comparisons, of which {kinds:,} are pairs and judgements")
        return self


class SourceReport(Record):
    """A file or data set that was read; `dropped` has rows by reason."""

    file: str
    format: str
    rows: Count
    usable: Count
    dropped: dict[str, Count]
    preferences: Count = 0  # rows that compare or judge answers, set apart
    reordered: dict[str, Count] = {}  # rows by what was done with turns
    unused: dict[str, Count] = {}  # rows by key that had no part in what was made of them
    source: str = ""  # the name that data.sources has for it

    @model_validator(mode="after")
    def _each_row_is_usable_or_dropped(self) -> Self:
        if self.rows != self.usable + self.preferences + (dropped := sum(self.dropped.values())):
            raise ValueError(f"{self.usable:,} usable rows and {dropped:,} dropped ones are not {self.rows:,}")
        return self


class QuestionReport(Record):
    """What became of the questions."""

    given: Count
    in_training: Count
    kept: Count
    groups: dict[str, Count]  # of the kept ones

    @model_validator(mode="after")
    def _each_is_kept_or_in_training(self) -> Self:
        if self.given != self.kept + self.in_training:
            raise ValueError(
                f"{self.kept:,} kept and {self.in_training:,} in training are not the {self.given:,} given"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_of_those_kept(self) -> Self:
        if self.kept != (grouped := sum(self.groups.values())):
            raise ValueError(f"the groups have {grouped:,}, and {self.kept:,} are kept")
        return self


class RuleReport(Record):
    """What a rule of `data.clean` has found, and the beginnings of some texts."""

    mode: Literal["count", "drop"]
    rows: Count
    examples: tuple[str, ...]


class MixedReport(Record):
    """What was taken of one of data.sources."""

    weight: Amount
    revision: str | None  # the hub's commit
    usable: Count
    sampled_out: Count  # rows that its cap and data.max_rows leave out
    splits: dict[str, Count]  # rows by split, those of train as often as they stand there


class GeneralSet(Record):
    """What came of a set of general texts, and what it is made from."""

    kept: Count
    in_training: Count  # left out, since they are trained on
    dropped: dict[str, Count]  # rows that are not usable, by reason
    settings: dict[str, object]
    files: dict[str, str]  # their digests


class GeneralSets(Record):
    """The sets of data/general, by name: sets.json."""

    made_by: ClassVar[str] = "prepare"

    sets: dict[str, GeneralSet]


class ReplayReport(Record):
    """What was taken of data.replay."""

    share: Share  # of the rows of train
    revisions: dict[str, str | None]  # the hub's commits, by source
    usable: Count
    repeated: Count  # that say what another row says
    measured: Count  # passed over, since they stand in what is measured
    wanted: Count  # rows that the share comes to
    taken: Count


class PrepareReport(Record):
    """What prepare has read and written: reports/prepare.json."""

    made_by: ClassVar[str] = "prepare"

    data: str
    revision: str | None
    files: tuple[SourceReport, ...]
    not_read: dict[str, str]  # reasons, by name
    not_met: tuple[str, ...] = ()  # names in data.columns, data.roles and data.ignore that no row has
    cleaning: dict[str, RuleReport] = {}  # by rule
    masked: dict[str, Count] = {}  # places of personal data, by kind
    duplicates: Count
    duplicates_by_source: dict[str, Count] | None = None
    near_duplicates: Count = 0
    balanced: dict[str, Count] = {}  # rows left out of train, by the topic or length that had too many
    own_splits: dict[str, tuple[str, ...]] = {}  # files that are one, by split
    common_exchanges: Count = 0  # greetings and the like, which may be in several splits
    largest_component: Count = 1  # rows that hang together
    leaks: dict[str, Count] = {}  # rows left out of train, by the split that is not to be known from them
    sampled_out: Count = 0  # rows beyond data.max_rows and the caps of sources
    added_by_weight: int = 0  # rows of train that stand there again, less those that a weight below 1 leaves out
    sources: dict[str, MixedReport] = {}  # those of data.sources
    replay: ReplayReport | None = None
    shared_by_own_splits: Count = 0  # rows left out of a brought validation, since they are linked to a brought test
    seed: int
    splits: dict[str, SplitReport]
    preferences: dict[str, ComparedReport] = {}  # comparisons by split
    questions: QuestionReport
    characters: dict[str, dict[str, Count]]  # messages by role and length

    @model_validator(mode="after")
    def _has_every_split(self) -> Self:
        if set(self.splits) != {*LEARNT_FROM, "test"}:
            raise ValueError(f"splits: they are {', '.join(self.splits) or 'none'}, not train, validation and test")
        return self

    @model_validator(mode="after")
    def _splits_have_each_usable_row_once(self) -> Self:
        distinct = sum(file.usable for file in self.files) - self.duplicates - self.near_duplicates
        distinct -= sum(self.leaks.values()) + self.shared_by_own_splits + sum(self.balanced.values())
        distinct -= self.sampled_out - self.added_by_weight
        distinct -= self.replay.usable - self.replay.taken if self.replay else 0
        split = sum(part.rows for part in self.splits.values())
        split += sum(part.rows - part.as_conversations for part in self.preferences.values())
        if distinct != split:
            raise ValueError(f"splits: {split:,} rows, of {distinct:,} usable and distinct ones")
        return self

    @model_validator(mode="after")
    def _duplicates_are_of_some_source(self) -> Self:
        by_source = self.duplicates_by_source
        if by_source is not None and self.duplicates != (total := sum(by_source.values())):
            raise ValueError(f"duplicates: {self.duplicates:,}, of which the sources have {total:,}")
        return self

    @model_validator(mode="after")
    def _roles_are_counted_by_the_same_lengths(self) -> Self:
        if len({tuple(lengths) for lengths in self.characters.values()}) > 1:
            raise ValueError("characters: counted by different lengths from role to role")
        return self

    @property
    def digests(self) -> dict[str, str]:
        """The digests of all that can be learnt from, by names in data/prepared."""
        compared = {f"{COMPARED}/{name}": part.sha256 for name, part in self.preferences.items() if name in LEARNT_FROM}
        return {name: self.splits[name].sha256 for name in LEARNT_FROM} | compared

    @property
    def learnt_digest(self) -> str:
        """The digest of what is learnt from: the splits that training and validation read."""
        return "+".join(self.splits[name].sha256[:16] for name in LEARNT_FROM)

    @property
    def compared_digest(self) -> str:
        """The same with the comparisons."""
        parts = [self.preferences[name].sha256[:16] for name in LEARNT_FROM if name in self.preferences]
        return "+".join([self.learnt_digest, *parts])

    @property
    def data_digests(self) -> tuple[str, ...]:
        """What trainings know their data by: conversations, or comparisons beside them."""
        return self.learnt_digest, self.compared_digest


class TrainReport(Record):
    """What a training came to, over all its sessions: reports/train.json (training/report.py says what each is)."""

    made_by: ClassVar[str] = "train"

    fingerprint: str | None = None
    engine: str | None = None
    attention: str | None = None
    steps: Count | None = None
    epochs: float | None = None
    best_step: Count | None = None
    sessions: Count | None = None
    seconds: Amount | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    tokens: Count | None = None
    steady_tokens_per_second: float | None = None
    outside_share: float | None = None
    startup_seconds: float | None = None
    micro_batch: Count | None = None
    effective_batch: Count | None = None
    processes: Count | None = None
    peak_memory_gib: float | None = None
    peak_memory_training_gib: float | None = None
    peak_memory_share: float | None = None
    peak_memory_training_share: float | None = None
    arithmetic_share: float | None = None
    trainable_parameters: Count | None = None
    trainable_share: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_accuracy: Share | None = None  # where it was asked for
