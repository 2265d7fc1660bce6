"""Splits that a data set brings: which file is which, told by its name or by the key that lists it."""

import re
from collections.abc import Iterable
from dataclasses import replace
from glob import glob
from pathlib import Path

from common.errors import UserError
from common.words import counted
from pipeline.core.data_settings import DataSettings, each_source, is_replayed, place_of, question_files
from pipeline.data.feedback import with_feedback_read
from pipeline.data.sources import Source, find_files, load

OWN = ("validation", "test")  # what a set may bring beside its train split
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
SPLIT_OF = {word: name for name, words in WORDS.items() for word in words}
SHARD = re.compile(r"-\d+-of-\d+$")  # as the hub numbers the files of one split
SUFFIXES = re.compile(r"(\.(jsonl|ndjson|json|csv|tsv|parquet|arrow|gz|zst|bz2|xz))+$", re.IGNORECASE)


def with_all_files(settings: DataSettings) -> DataSettings:
    """Return the settings with the files of all splits under `files`."""
    if settings.source != "files":
        return settings
    return replace(settings, files=[*settings.files, *settings.validation_files, *settings.test_files])


def find_all(settings: DataSettings, root: Path) -> tuple[list[str], list[str]]:
    """Return the files of all sources: those with a known suffix, and the others."""
    found = [find_files(with_all_files(one), root) for one in each_source(settings).values() if one.source == "files"]
    return [name for readable, _ in found for name in readable], [name for _, ignored in found for name in ignored]


def all_sources(settings: DataSettings, root: Path) -> list[Source]:
    """Return what is read, with the splits that it is, that of validation and test first, less the questions' file.

    Raises:
        UserError: something cannot be had, two sources or splits claim a file, or nothing is left for training.
    """
    sets = each_source(settings)
    loaded = {name: _load(name, with_all_files(one), root) for name, one in sets.items()}
    alone = sum(not is_replayed(name) for name in sets) == 1
    found = [
        replace(source, group=name)
        for name, sources in loaded.items()
        for source in told_apart(sources, sets[name], root, alone)
    ]
    _require_one_claim(found)
    if not any(is_learnt(source) for source in found if not is_replayed(source.group)):
        raise UserError(
            f"nothing is left to train on: of {counted(sum(map(len, loaded.values())), 'file')} each is the questions' "
            "or another split's; name others in data.files"
        )
    return sorted(with_feedback_read(found), key=is_learnt)


def _load(name: str, settings: DataSettings, root: Path) -> list[Source]:
    """Return the sources of a set; an error says which it is of, where it has a name."""
    try:
        return load(settings, root)
    except UserError as error:
        raise UserError(f"{place_of(name)}: {error}" if name else str(error)) from error


def _require_one_claim(sources: list[Source]) -> None:
    """Refuse a file that two sources read."""
    groups: dict[str, str] = {}
    for source in sources:
        if (first := groups.setdefault(source.name, source.group)) != source.group:
            raise UserError(
                f"{place_of(first)} and {place_of(source.group)} both read {source.name}, which has to be one's"
            )


def told_apart(sources: list[Source], settings: DataSettings, root: Path, alone: bool = True) -> list[Source]:
    """Return the sources of a set with the splits that they are, less the questions' file.

    Of a set that is `alone` the names count for nothing where they would leave nothing to train on.

    Raises:
        UserError: a pattern of a split matches no file, or two splits claim a file.
    """
    by_key = _listed_files(settings, root)
    data = [source for source in sources if settings.source != "files" or not is_questions(source.name, settings, root)]
    splits = [by_key.get(source.name) or _told(source, settings) for source in data]
    if alone and set(splits) <= set(OWN):  # a test.jsonl alone is as good as any other name
        splits = [by_key.get(source.name) for source in data]
    return [replace(source, split=split) for source, split in zip(data, splits, strict=True)]


def is_questions(name: str, settings: DataSettings, root: Path) -> bool:
    """Return whether a file is one of questions, which are asked and never learnt."""
    return (root / name).resolve() in [(root / asked).resolve() for asked in question_files(settings.questions)]


def is_learnt(source: Source) -> bool:
    """Return whether a source is trained on, or split where its set has no splits of its own."""
    return source.split in (None, "train")


def split_in_name(name: str) -> str | None:
    """Return the split that a file's name, or else the folder that it stands in, says that it is."""
    path = Path(name)
    parts = re.split(r"[-_. ]+", SHARD.sub("", SUFFIXES.sub("", path.name)).lower())
    said = {SPLIT_OF[part] for part in (parts[0], parts[-1]) if part in SPLIT_OF}
    if not said:
        folders = path.parts[-2::-1][: 1 if path.is_absolute() else None]  # further up is /home/dev, which is no split
        return next((SPLIT_OF[part.lower()] for part in folders if part.lower() in SPLIT_OF), None)
    return said.pop() if len(said) == 1 else None  # "train_test" is neither


def require_sizes(settings: DataSettings, brought: set[str]) -> None:
    """Refuse the size 0 for a split that no file brings.

    Raises:
        UserError: training stops by the validation split, and evaluation measures on the test split.
    """
    for name in OWN:
        if getattr(settings, name) == 0 and name not in brought:
            raise UserError(
                f"data.{name} is 0 and no file brings a {name} split, which later stages need; set a share or a "
                f"number of rows, or name files in data.{name}_files"
            )


def require_train(rows: int, brought: Iterable[str]) -> None:
    """Refuse a set whose rows are all of splits that are not trained on, as a JSON may list them.

    Raises:
        UserError: none is left.
    """
    if rows == 0:
        raise UserError(
            f"every usable row is of the set's own {' or '.join(brought)} split, and none is left to train on; bring "
            "others, or set data.own_splits=false to split these"
        )


def _told(source: Source, settings: DataSettings) -> str | None:
    """Return the split that a source says it is: by the hub's name of it, or by that of the file."""
    return split_in_name(source.split or source.name) if settings.own_splits else None


def _listed_files(settings: DataSettings, root: Path) -> dict[str, str]:
    """Return the split by file of those that a key lists."""
    found: dict[str, str] = {}
    for split, patterns in (("validation", settings.validation_files), ("test", settings.test_files)):
        for pattern in patterns:
            names = [Path(name).as_posix() for name in glob(pattern, root_dir=root, recursive=True)]  # noqa: PTH207
            files = [name for name in names if (root / name).is_file()]
            if not files:
                raise UserError(f"data.{split}_files has {pattern}, which matches no file; correct it or take it out")
            for name in files:
                if found.setdefault(name, split) != split:
                    raise UserError(f"data.validation_files and data.test_files both match {name}; each is one split's")
    return found
