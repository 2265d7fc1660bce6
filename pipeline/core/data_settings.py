"""What `prepare` can be told, and the ranges that it accepts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from common.errors import UserError
from pipeline.core.formats import FORMATS, KNOWN_KEYS, ROLES
from pipeline.core.limits import any_of, limited, one_of

MODES = ("off", "count", "drop")


@dataclass(frozen=True, kw_only=True)
class CleanSettings:
    """The `data.clean` group: which conversations are left out for what they are like (pipeline/data/cleaning.py)."""

    refusals: str = one_of(*MODES)
    repetition: str = one_of(*MODES)
    max_repetition: float = limited(above=0, below=1)
    cut_off: str = one_of(*MODES)
    leftovers: str = one_of(*MODES)
    min_answer_words: int | None = limited(least=1)
    max_words: int | None = limited(least=1)
    min_tokens: int | None = limited(least=1)
    max_tokens: int | None = limited(least=1)
    tokenizer: str | None  # whose tokens the two bounds count: a model's path
    languages: list[str]  # ISO 639-1 codes; empty for all
    min_quality: float | None = limited(above=0, most=1)
    topic_share: float | None = limited(above=0, most=1)
    length_share: float | None = limited(above=0, most=1)
    mask: list[str] = any_of("email", "iban", "card", "phone", "ip")


NO_CLEANING = CleanSettings(
    refusals="off",
    repetition="off",
    max_repetition=0.5,
    cut_off="off",
    leftovers="off",
    min_answer_words=None,
    max_words=None,
    min_tokens=None,
    max_tokens=None,
    tokenizer=None,
    languages=[],
    min_quality=None,
    topic_share=None,
    length_share=None,
    mask=[],
)

NAME = re.compile(r"[\w-]+")  # of a source
REPLAY = "replay."  # before the name of a source of `replay`, which a name of `sources` cannot have
CODE = re.compile("[a-z]{2}")  # of a language

DUPLICATES = ("folded", "exact", "off")

LEARN = "learn"  # of `preferences`
PREFERENCES = ("apart", LEARN, "answers", "drop")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """One of `data.sources`: files, or a dataset of the hub; those that are null are as `data` has them."""

    may_lack_keys: ClassVar = True

    files: list[str] = field(default_factory=list)
    validation_files: list[str] = field(default_factory=list)
    test_files: list[str] = field(default_factory=list)
    path: str | None = None
    subset: str | None = None
    split: str | list[str] | None = "train"
    revision: str | None = None
    streaming: bool | None = None
    weight: float = 1  # how often each of its rows stands in train
    cap: int | None = None  # rows that are taken of it
    format: str | None = None
    columns: dict[str, str] | None = None
    roles: dict[str, str] | None = None
    preferences: str | None = None
    ignore: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """General conversations and texts that are learnt beside the data, so that less is forgotten."""

    sources: dict[str, SourceSettings | None]  # one that is null is left out
    share: float = limited(least=0, below=1)  # of the rows of train


OWN_SPLITS = ("validation_files", "test_files")
OWN_KEYS = ("files", "validation_files", "test_files", "path", "subset", "split", "revision")
SHARED_BY_SOURCES = ("streaming", "format", "columns", "roles", "preferences", "ignore")


@dataclass(frozen=True)
class DataSettings:
    """The `data` group of the configuration.

    `files` are paths and globs, relative to the repository or absolute; `path`, `subset`, `split` and `revision` name a
    hub dataset. Of the two, `source` says which is read. `validation` and `test` are shares below 1, or row counts from
    1 up. `sources`, by their names, stand in the place of all that says what is read.
    """

    name: str
    source: str  # "files" or "hub"
    files: list[str] = field(default_factory=list)
    path: str | None = None
    subset: str | None = None
    split: str | list[str] | None = "train"  # null is all that the dataset has
    revision: str | None = None  # branch, tag or commit; null is the default branch
    streaming: bool = False  # rows come over the network as they are read, and are not kept
    format: str = "auto"  # by the rows' keys, or a name in FORMATS
    max_rows: int | None = None
    columns: dict[str, str] | None = None  # a file's names of keys, and ours
    roles: dict[str, str] | None = None  # a file's names of roles, and ours
    preferences: str = "apart"  # or learn, or answers, or drop: rows that compare or judge answers
    opening: str = "drop"  # what the assistant says before the user; or keep it as context
    repeated: str = "reject"  # rows with two turns of a role one after the other; or merge these
    ignore: list[str] = field(default_factory=list)  # keys that are read as if they were not there
    max_dropped: float = 0.05  # share of all rows that may be unusable
    max_bad_lines: int = 100  # lines that cannot be read, of all files together
    validation: float = 0.05
    test: float = 0.05
    seed: int = 0
    questions: str | list[str] | None = None  # JSONL files of questions, relative to the repository
    answer_after: str | None = None  # where such a file has chats: what the answer follows in the assistant's text
    clean: CleanSettings = field(default_factory=lambda: NO_CLEANING)
    own_splits: bool = True  # files named train, validation or test are those splits
    validation_files: list[str] = field(default_factory=list)  # read as that split, whatever they are called
    test_files: list[str] = field(default_factory=list)
    duplicates: str = "folded"  # which are dropped: those up to case and punctuation, exact ones, or none (off)
    near_duplicates: float | None = None  # overlap of conversations from which one alone of a cluster is kept
    common_exchange: float | None = 0.1  # share of rows from which an exchange ties none; null: each ties
    leak_threshold: float | None = 0.8  # of prompts' overlap; null ties only what has the same prompt to the letter
    sources: dict[str, SourceSettings | None] | None = None  # one that is null is left out
    replay: ReplaySettings | None = None


def question_files(questions: str | Sequence[str] | None) -> list[str]:
    """Return the files that `data.questions` names: one, several or none."""
    return [questions] if isinstance(questions, str) else list(questions or ())


def each_source(settings: DataSettings) -> dict[str, DataSettings]:
    """Return the settings by which each source is read, those of a set of one; its name is empty where none are named.

    One of `sources` is a set of its own, by the keys that it has and what it shares with the others. Those of
    `replay` come last, each by REPLAY and its name.
    """
    own = {name: alone_as(source, settings) for name, source in named_sources(settings).items()}
    alone = {"": settings} if settings.sources is None else own
    all_train = replace(settings, own_splits=False)
    return alone | {name: alone_as(source, all_train) for name, source in replayed(settings).items()}


def place_of(name: str) -> str:
    """Return the key under which a source of `each_source` stands."""
    if not name:
        return "data"
    return f"data.replay.sources.{name.removeprefix(REPLAY)}" if is_replayed(name) else f"data.sources.{name}"


def is_replayed(name: str) -> bool:
    """Return whether a source of `each_source` is one of `data.replay`."""
    return name.startswith(REPLAY)


def replayed(settings: DataSettings) -> dict[str, SourceSettings]:
    """Return those of `data.replay` that are read, by REPLAY and their names; none where its share is 0."""
    if settings.replay is None or not settings.replay.share:
        return {}
    return {f"{REPLAY}{name}": source for name, source in sets_of(settings.replay.sources).items()}


def named_sources(settings: DataSettings) -> dict[str, SourceSettings]:
    """Return those of `data.sources` that are not left out."""
    return sets_of(settings.sources or {})


def sets_of(sources: Mapping[str, SourceSettings | None]) -> dict[str, SourceSettings]:
    """Return sources by their names without those that are null, and so left out."""
    return {name: source for name, source in sources.items() if source}


def alone_as(source: SourceSettings, settings: DataSettings) -> DataSettings:
    """Return the settings by which a source is read alone; what it does not say is as in `settings`."""
    given = {key: value for key in SHARED_BY_SOURCES if (value := getattr(source, key)) is not None}
    own = {key: getattr(source, key) for key in OWN_KEYS}
    kind = "hub" if source.path else "files"
    return replace(settings, sources=None, replay=None, source=kind, **own, **given)


def validate(settings: DataSettings) -> None:
    """Raise a `UserError` that names the first key out of range and what it may be."""
    if settings.sources is None:
        _validate_source(settings)
    else:
        _validate_sources(settings, named_sources(settings))
    if settings.replay:
        _validate_replay(settings, settings.replay)
    _require(settings.max_rows is None or settings.max_rows >= 3, "max_rows", settings.max_rows, "null or at least 3")
    _require(settings.opening in ("drop", "keep"), "opening", settings.opening, "drop or keep")
    _require(settings.repeated in ("reject", "merge"), "repeated", settings.repeated, "reject or merge")
    _require(0 <= settings.max_dropped <= 1, "max_dropped", settings.max_dropped, "a share of the rows, 0 to 1")
    _require(settings.max_bad_lines >= 0, "max_bad_lines", settings.max_bad_lines, "0 or more lines")
    _validate_cleaning(settings.clean)
    _require(settings.duplicates in DUPLICATES, "duplicates", settings.duplicates, "one of " + ", ".join(DUPLICATES))
    for key, overlap in (
        ("near_duplicates", settings.near_duplicates),
        ("leak_threshold", settings.leak_threshold),
    ):
        _require(overlap is None or 0.5 <= overlap <= 1, key, overlap, "null or from 0.5 to 1")
    common = settings.common_exchange
    _require(
        common is None or 0 < common < 1, "common_exchange", common, "null or a share of the rows, above 0 and below 1"
    )
    _require(settings.answer_after != "", "answer_after", settings.answer_after, "null or a text that is not empty")
    _require(settings.seed >= 0, "seed", settings.seed, "0 or more")
    _validate_sizes(settings)


def _validate_sources(settings: DataSettings, sources: dict[str, SourceSettings]) -> None:
    """Check what each source says of itself, and that `data` names no other beside them."""
    _require(bool(sources), "sources", sources, "null, or at least one source by its name")
    for key in ("files", "path", "validation_files", "test_files"):
        value = getattr(settings, key)
        _require(not value, key, value, "empty where data.sources names what is read; name it there")
    for name, source in sources.items():
        key = f"sources.{name}"
        _validate_place(name, source, f"data.{key}")
        _require(source.weight > 0, f"{key}.weight", source.weight, "above 0: how often its rows stand in train")
        _require(source.cap is None or source.cap >= 1, f"{key}.cap", source.cap, "null or at least 1 row")
    for name in sources:
        _validate_source(each_source(settings)[name], f"sources.{name}.")


def _validate_place(name: str, source: SourceSettings, key: str) -> None:
    """Check the name of a source, and that it says where its rows are."""
    _require(bool(NAME.fullmatch(name)), key, name, "a name of letters, digits, _ and -", "")
    places = [place for place in ("files", *OWN_SPLITS, "path") if getattr(source, place)]
    _require(bool(places), key, places, "a source with files, or with the path of a dataset on the hub", "")
    _require("path" not in places or len(places) == 1, key, places, "either files or a path, and not both", "")


def _validate_replay(settings: DataSettings, replay: ReplaySettings) -> None:
    """Check what is replayed, of which nothing is held out."""
    named = sets_of(replay.sources)
    _require(bool(named), "replay.sources", replay.sources, "at least one source by its name; or data.replay is null")
    for name, source in named.items():
        key = f"replay.sources.{name}"
        validate_whole(name, source, f"data.{key}", "data.replay.share says how much is taken")
        _require(source.cap is None, f"{key}.cap", source.cap, "null; data.replay.share says how much is taken")
        _validate_source(alone_as(source, settings), f"{key}.")


def validate_whole(name: str, source: SourceSettings, key: str, instead: str) -> None:
    """Check a source of which all is of one kind: no splits, no weight.

    Raises:
        UserError: it names the key, and what says so `instead`.
    """
    _validate_place(name, source, key)
    for split in OWN_SPLITS:
        _require(not getattr(source, split), f"{key}.{split}", getattr(source, split), "empty; name them in files", "")
    _require(source.weight == 1, f"{key}.weight", source.weight, f"1; {instead}", "")


def _validate_source(settings: DataSettings, prefix: str = "") -> None:
    """Check what says where rows come from and how they are read."""
    formats = ("auto", *FORMATS)
    _require(settings.source in ("files", "hub"), "source", settings.source, "files or hub")
    _require(settings.format in formats, f"{prefix}format", settings.format, "one of " + ", ".join(formats))
    if settings.source == "files":
        _require(bool(settings.files) or bool(prefix), "files", settings.files, "a list of at least one path or glob")
    else:
        _require(bool(settings.path), f"{prefix}path", settings.path, "the hub's name of a dataset, such as owner/name")
        allowed = "the name of a split, such as train, a list of some, or null for all"
        _require(settings.split is None or _is_named(settings.split), f"{prefix}split", settings.split, allowed)
        for key, files in (("validation_files", settings.validation_files), ("test_files", settings.test_files)):
            _require(not files, f"{prefix}{key}", files, "empty where data.source is hub")
    _require(
        settings.preferences in PREFERENCES,
        f"{prefix}preferences",
        settings.preferences,
        "one of " + ", ".join(PREFERENCES),
    )
    for theirs, ours in (settings.columns or {}).items():
        _require(ours in KNOWN_KEYS, f"{prefix}columns.{theirs}", ours, "one of " + ", ".join(KNOWN_KEYS))
    for theirs, ours in (settings.roles or {}).items():
        _require(ours in ROLES, f"{prefix}roles.{theirs}", ours, "one of " + ", ".join(ROLES))


def _validate_sizes(settings: DataSettings) -> None:
    """Check how much validation and test take."""
    for key, size in (("validation", settings.validation), ("test", settings.test)):
        allowed = "a share above 0 and below 1, a whole number of rows from 1 up, or 0 where files bring that split"
        _require((size == 0 and _may_bring(settings, key)) or _is_size(size), key, size, allowed)
    shares = sum(size for size in (settings.validation, settings.test) if size < 1)
    if shares >= 1:
        raise UserError(f"data.validation and data.test take {shares:g} of the rows together; leave a share for train")


def _may_bring(settings: DataSettings, split: str) -> bool:
    """Return whether a split may be among what is read."""
    listed = any(getattr(source, f"{split}_files") for source in each_source(settings).values())
    return listed or settings.own_splits


def _is_named(split: str | list[str]) -> bool:
    return bool(split) and all([split] if isinstance(split, str) else split)


def _validate_cleaning(clean: CleanSettings) -> None:
    bounds = [key for key in ("min_tokens", "max_tokens") if getattr(clean, key) is not None]
    if bounds and not clean.tokenizer:
        raise UserError(
            f"data.clean.{bounds[0]} counts tokens, and data.clean.tokenizer is null; name whose they are, such as "
            "'data.clean.tokenizer=${model.path}'"
        )
    for code in clean.languages:
        _require(bool(CODE.fullmatch(code)), "clean.languages", code, "codes of ISO 639-1, such as de and en")


def _is_size(size: float) -> bool:
    return 0 < size < 1 or (size >= 1 and float(size).is_integer())


def _require(accepted: bool, key: str, value: object, allowed: str, group: str = "data.") -> None:
    if not accepted:
        raise UserError(f"{group}{key} is {value!r}; it may be {allowed}")
