"""What `prepare` can be told, and the ranges that it accepts."""

import re
from dataclasses import dataclass, field

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

CODE = re.compile("[a-z]{2}")  # of a language

DUPLICATES = ("folded", "exact", "off")

PREFERENCES = ("apart", "answers", "drop")


@dataclass(frozen=True)
class DataSettings:
    """The `data` group of the configuration.

    `files` are paths and globs, relative to the repository or absolute; `path`, `subset`, `split` and `revision` name a
    hub dataset. Of the two, `source` says which is read. `validation` and `test` are shares below 1, or row counts from
    1 up.
    """

    name: str
    source: str  # "files" or "hub"
    files: list[str] = field(default_factory=list)
    path: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None  # branch, tag or commit; null is the default branch
    format: str = "auto"  # by the rows' keys, or a name in FORMATS
    max_rows: int | None = None
    columns: dict[str, str] | None = None  # a file's names of keys, and ours
    roles: dict[str, str] | None = None  # a file's names of roles, and ours
    preferences: str = "apart"  # or answers, or drop: rows that compare or judge answers
    opening: str = "drop"  # what the assistant says before the user; or keep it as context
    repeated: str = "reject"  # rows with two turns of a role one after the other; or merge these
    ignore: list[str] = field(default_factory=list)  # keys that are read as if they were not there
    max_dropped: float = 0.05  # share of all rows that may be unusable
    max_bad_lines: int = 100  # lines that cannot be read, of all files together
    validation: float = 0.05
    test: float = 0.05
    seed: int = 0
    questions: str | None = None  # a JSONL file of questions with known answers, relative to the repository
    answer_after: str | None = None  # where that file has chats: what the answer follows in the assistant's text
    clean: CleanSettings = field(default_factory=lambda: NO_CLEANING)
    own_splits: bool = True  # files named train, validation or test are those splits
    validation_files: list[str] = field(default_factory=list)  # read as that split, whatever they are called
    test_files: list[str] = field(default_factory=list)
    duplicates: str = "folded"  # which are dropped: those up to case and punctuation, exact ones, or none (off)
    near_duplicates: float | None = None  # overlap of conversations from which one alone of a cluster is kept
    leak_threshold: float | None = 0.8  # of prompts' overlap; null ties only what has the same prompt to the letter


def validate(settings: DataSettings) -> None:
    """Raise a `UserError` that names the first key out of range and what it may be."""
    formats = ("auto", *FORMATS)
    _require(settings.source in ("files", "hub"), "source", settings.source, "files or hub")
    _require(settings.format in formats, "format", settings.format, "one of " + ", ".join(formats))
    if settings.source == "files":
        _require(bool(settings.files), "files", settings.files, "a list of at least one path or glob")
    else:
        _require(bool(settings.path), "path", settings.path, "the hub's name of a dataset, such as owner/name")
        _require(bool(settings.split), "split", settings.split, "the name of a split, such as train")
        for key, files in (("validation_files", settings.validation_files), ("test_files", settings.test_files)):
            _require(not files, key, files, "empty where data.source is hub")
    _require(settings.max_rows is None or settings.max_rows >= 3, "max_rows", settings.max_rows, "null or at least 3")
    _require(
        settings.preferences in PREFERENCES, "preferences", settings.preferences, "one of " + ", ".join(PREFERENCES)
    )
    for theirs, ours in (settings.columns or {}).items():
        _require(ours in KNOWN_KEYS, f"columns.{theirs}", ours, "one of " + ", ".join(KNOWN_KEYS))
    for theirs, ours in (settings.roles or {}).items():
        _require(ours in ROLES, f"roles.{theirs}", ours, "one of " + ", ".join(ROLES))
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
    _require(settings.answer_after != "", "answer_after", settings.answer_after, "null or a text that is not empty")
    _require(settings.seed >= 0, "seed", settings.seed, "0 or more")
    for key, size, files in (
        ("validation", settings.validation, settings.validation_files),
        ("test", settings.test, settings.test_files),
    ):
        may_be_brought = size == 0 and (bool(files) or settings.own_splits)
        allowed = "a share above 0 and below 1, a whole number of rows from 1 up, or 0 where files bring that split"
        _require(may_be_brought or _is_size(size), key, size, allowed)
    shares = sum(size for size in (settings.validation, settings.test) if size < 1)
    if shares >= 1:
        raise UserError(f"data.validation and data.test take {shares:g} of the rows together; leave a share for train")


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


def _require(accepted: bool, key: str, value: object, allowed: str) -> None:
    if not accepted:
        raise UserError(f"data.{key} is {value!r}; it may be {allowed}")
