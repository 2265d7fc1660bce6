"""The files of a model: one, or several that are named as llama.cpp's gguf-split does: name-00001-of-00003.gguf, …"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import UserError
from llama.header import Header, read_header

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
NAMED = 3  # missing parts that are named at most


@dataclass(frozen=True)
class ModelFile:
    """A GGUF file, and what its model is called."""

    name: str
    path: Path  # of several the first, by which llama.cpp finds the others
    revision: str | None = None  # the Hub's commit, MLflow's version
    parts: tuple[Path, ...] = ()  # all of a model that has several
    source: str = ""  # that has it, as SERVE_MODELS names it
    moves: bool = False  # whether that may lead to another one later


def join_parts(files: Iterable[ModelFile]) -> list[ModelFile]:
    """Return the files of a source, those of a model with several as one.

    It is named without its number, unless a file beside it has that name.
    """
    models: dict[Path, list[ModelFile]] = {}
    for file in files:
        part = PART.fullmatch(file.path.stem)
        whole = file.path.with_name(f"{part['stem']}.gguf of {part['count']}") if part else file.path
        models.setdefault(whole, []).append(file)
    names = {file.name for some in models.values() for file in some}
    return [_join(some, names) if PART.fullmatch(some[0].path.stem) else some[0] for some in models.values()]


def _join(files: Sequence[ModelFile], names: set[str]) -> ModelFile:
    parts = sorted(file.path for file in files)
    first = next(file for file in files if file.path == parts[0])
    part = PART.fullmatch(first.name)
    plain = part["stem"] if part else first.name
    return replace(first, name=first.name if plain in names else plain, parts=tuple(parts))


def read_whole(file: ModelFile) -> Header:
    """Return what a model's files say of it, with the tensors of all of them.

    Raises UserError for one that is no whole GGUF, and for parts that are missing, or not named so that llama.cpp finds
    them.
    """
    header = read_header(file.path)
    _check_parts(file, header)
    headers = [header, *map(read_header, file.parts[1:])]
    return header._replace(tensors={name: extent for part in headers for name, extent in part.tensors.items()})


def _check_parts(file: ModelFile, header: Header) -> None:
    number, count = header.whole("split.no") + 1, header.whole("split.count") or 1
    named = PART.fullmatch(file.path.stem)
    if not named:
        if count > 1:
            raise UserError(
                f"{file.path} is part {number} of {count} of a model: name it …-{number:05d}-of-{count:05d}.gguf as the"
                " others are, or they are not found together"
            )
        return
    if int(named["count"]) != count:
        raise UserError(f"{file.path} is named as one of {int(named['count'])} parts, and is one of {count}: rename it")
    there = {part.name for part in file.parts}
    names = (f"{named['stem']}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1))
    missing = [name for name in names if name not in there]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise UserError(f"{file.path} is a part of a model that lacks {', '.join(missing[:NAMED])}{more}")
