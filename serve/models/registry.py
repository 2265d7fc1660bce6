"""Which models there are: the GGUF files of the sources that SERVE_MODELS lists (see sources.py)."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from common.errors import UserError
from llama import model as llama
from llama.header import Header
from llama.lora import read_lora
from llama.memory import cache_bytes
from serve.models.adapters import find_base
from serve.models.files import ModelFile, read_whole
from serve.models.kinds import embeds, is_adapter, what_else
from serve.models.sources import find_files

DIGITS = 12  # of a file's SHA-256, by which it is told from another of its name
TOLD = 5  # files that are no models, at most, where there is no model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A GGUF file, or all of a split model's, that llama.cpp has found whole; or an adapter, which goes by its base."""

    name: str  # see sources.py: short, unique and stable
    parts: tuple[Path, ...]
    size: int  # bytes of all of them
    modified: int  # nanoseconds since 1970, of the latest
    context: int  # tokens that it was trained for
    token_bytes: int  # that a token takes in the KV cache
    chats: bool  # whether it has a chat template
    embeds: bool = False  # whether it turns texts into vectors, and answers nothing
    quantization: str | None = None  # as Q4_K_M; None where the file does not say
    base: str | None = None  # of an adapter the model that it lies over
    pinned: str | None = None  # what it came by: the Hub's commit, the registry's version; None for a file of a folder
    source: str = ""  # of SERVE_MODELS, that has it
    moves: bool = False  # whether that may lead to another one later

    @property
    def path(self) -> Path:
        """The file by which llama.cpp loads it: the first one."""
        return self.parts[0]

    @property
    def label(self) -> str:
        """What the picker shows: starter-m-Q8_0 (6.3 MB)."""
        return f"{self.name} ({self.size / 1e6:.{1 if self.size < 1e8 else 0}f} MB)"

    @property
    def title(self) -> str:
        """What stands under its answers: with its version where its name does not tell which one it is."""
        version = f"version {self.pinned}" if self.pinned else self.fingerprint
        return f"{self.name} ({version})" if self.moves and version else self.name

    @property
    def revision(self) -> str | None:
        """Which one of its name it is: what it came by, else the beginning of its digest."""
        return self.pinned or (self.digest and self.digest[:DIGITS])

    @property
    def fingerprint(self) -> str | None:
        """The same without reading a file: None for one of a folder that has not been in memory yet."""
        digest: str | None = self.__dict__.get("digest")  # where cached_property keeps it
        return self.pinned or (digest and digest[:DIGITS])

    @cached_property
    def digest(self) -> str | None:
        """The SHA-256 of its files, one after another, whose reading takes a second for 1 to 2 GB.

        None where another file has taken its place, or none: then nothing can tell any more.
        """
        digest = hashlib.sha256()
        try:
            with ExitStack() as opened:
                files = [opened.enter_context(part.open("rb")) for part in self.parts]
                if _stamp([os.fstat(file.fileno()) for file in files]) != (self.size, self.modified):
                    return None
                for file in files:
                    hashlib.file_digest(file, lambda: digest)
        except OSError:
            return None
        return digest.hexdigest()


NONE: Mapping[str, Model] = MappingProxyType({})


class Read(NamedTuple):
    """What files are."""

    models: dict[str, Model]  # by name
    left_out: dict[str, str]  # names of those that are none, and why


def read_models(files: Iterable[ModelFile], beside: Mapping[str, Model] = NONE, base: str = "") -> Read:
    """Return the models that files are, adapters last.

    Args:
        files: that are here, whole or not.
        beside: other models that are served, which adapters may be for and whose names are taken.
        base: the model that an adapter is for where several would do; empty for none.

    Raises UserError when two have one name, and when there is no model of the base's.
    """
    models = dict(beside)
    headers: dict[str, Header] = {}
    adapters: list[tuple[ModelFile, Header]] = []
    left_out: dict[str, str] = {}
    for file in files:
        try:
            header = _header(file)
            if is_adapter(header):
                adapters.append((file, header))
                continue
            model = _model(file, header)
        except UserError as error:
            left_out[file.name] = str(error)
            continue
        _add(models, model)
        headers[file.name] = header
    bases = {name: model for name, model in models.items() if not (model.embeds or model.base)}
    named = in_place(base, bases) if base else None
    if base and not named:
        raise UserError(f"SERVE_BASE={base}: there is no such model to answer; there is {', '.join(bases) or 'none'}")
    for file, header in adapters:
        try:
            for name, model in bases.items():
                headers[name] = headers.get(name) or read_whole(file_of(model))
            known = {name: (model.path, headers[name]) for name, model in bases.items()}
            name = find_base(read_lora(file.path, header), header, known, named.name if named else "")
        except UserError as error:
            left_out[file.name] = str(error)
            continue
        _add(models, _adapter(file, models[name]))
    return Read({name: model for name, model in models.items() if name not in beside}, left_out)


def find_models(sources: str | Path, wanted: str = "", base: str = "") -> dict[str, Model]:
    """Return all models by name, in the order of the sources and below each in that of their names; then adapters.

    Files that are none, or damaged, and adapters whose base is not there, are left out with a line each in the log.

    Args:
        sources: separated by commas, as SERVE_MODELS has them.
        wanted: the model to begin with, as SERVE_MODEL has it; empty where any will do.
        base: the model that an adapter is for where several would do, as SERVE_BASE has it; empty for none.

    Raises UserError when there is no model, or not the one that is wanted or named as a base, when two have one name,
    and when a source cannot be had.
    """
    models, reasons = read_models(find_files(str(sources)), base=base)
    first = in_place(wanted, models) if wanted else None
    if wanted and not first and (models or wanted in reasons):
        reason = reasons.get(wanted, f"there is no such model; there is {', '.join(models)}")
        raise UserError(f"SERVE_MODEL={wanted}: {reason}")
    why = "is an embedding model, and no model to chat with"
    embedders = {name: f"{model.path} {why}" for name, model in models.items() if model.embeds}
    if first and first.embeds:
        raise UserError(f"SERVE_MODEL={wanted}: {embedders[first.name]}")
    if len(embedders) == len(models):
        raise UserError(no_model(sources, [*embedders.values(), *reasons.values()]))
    for reason in reasons.values():
        logger.warning("left out: %s", reason)
    return models


def in_place(name: str, models: Mapping[str, Model]) -> Model | None:
    """Return the model of a name; for what an alias had or may have, `name@alias/…`, what the alias is on now."""
    if name in models:
        return models[name]
    alias = f"{name.partition('/')[0]}/"
    found = [model for model in models.values() if model.moves and "@" in alias and model.name.startswith(alias)]
    return min(found, key=lambda model: (model.embeds, bool(model.base)), default=None)


def no_model(sources: str | Path, reasons: Sequence[str]) -> str:
    """Return what to say where all there is has been left out."""
    if len(reasons) == 1:
        return reasons[0]
    more = f"; and {len(reasons) - TOLD} more" if len(reasons) > TOLD else ""
    return f"{sources} has no model to serve: {'; '.join(reasons[:TOLD])}{more}"


def _add(models: dict[str, Model], model: Model) -> None:
    """Add a model. Raises UserError where there is one of its name."""
    if other := models.get(model.name):
        raise UserError(
            f"two models are called {model.name}: {other.path} and {model.path}:"
            " rename one of the files, or leave its source out of SERVE_MODELS"
        )
    models[model.name] = model


def file_of(model: Model) -> ModelFile:
    """Return the file that a model was read from."""
    parts = model.parts if len(model.parts) > 1 else ()
    return ModelFile(model.name, model.path, model.pinned, parts, model.source, model.moves)


def _header(file: ModelFile) -> Header:
    """Return what a file says. Raises UserError for one that is no whole GGUF, or has no name that can be asked for."""
    if re.search("[\ud800-\udfff]", file.name):  # bytes of a file's name that JSON cannot have
        raise UserError(f"{file.name!a} is no name in UTF-8: rename the file")
    return read_whole(file)


def _adapter(file: ModelFile, base: Model) -> Model:
    size, modified = _stamp([file.path.stat()])
    named = replace(base, name=file.name, base=base.name, pinned=file.revision)
    named = replace(named, source=file.source, moves=file.moves)
    return replace(named, parts=(file.path,), size=size, modified=modified)


def _model(file: ModelFile, header: Header) -> Model:
    """Return a model. Raises UserError for a file that is none, or that llama.cpp cannot read."""
    if kind := what_else(header):
        raise UserError(f"{file.path} is {kind}, and no model to chat with")
    metadata, parts = llama.metadata(file.path), file.parts or (file.path,)
    if f"{header.architecture}.context_length" not in metadata:
        raise llama.not_whole(file.path, "it does not say how many tokens it was trained for")
    size, modified = _stamp([part.stat() for part in parts])
    return Model(
        file.name,
        parts,
        size,
        modified,
        context=int(metadata[f"{header.architecture}.context_length"]),
        token_bytes=cache_bytes(metadata),
        chats=bool(header.keys.get("tokenizer.chat_template")),
        embeds=embeds(header),
        quantization=llama.quantization(metadata),
        pinned=file.revision,
        source=file.source,
        moves=file.moves,
    )


def _stamp(states: Sequence[os.stat_result]) -> tuple[int, int]:
    """Return size and time of files together."""
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)
