"""Which models there are: the GGUF files of the sources that SERVE_MODELS lists (see sources.py)."""

import hashlib
import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.errors import UserError
from llama import model as llama
from llama.memory import cache_bytes
from serve.models.sources import ModelFile, find_files

ADAPTER = b"general.type" + struct.pack("<IQ", 8, 7) + b"adapter"  # a text (8) of seven bytes, as GGUF has it
DIGITS = 12  # of a file's SHA-256, by which it is told from another of its name


@dataclass(frozen=True)
class Model:
    """A GGUF file that llama.cpp has found whole."""

    name: str  # see sources.py: short, unique and stable
    path: Path
    size: int  # bytes
    modified: int  # nanoseconds since 1970
    context: int  # tokens that it was trained for
    token_bytes: int  # that a token takes in the KV cache
    quantization: str | None = None  # as Q4_K_M; None where the file does not say
    pinned: str | None = None  # what it came by: the Hub's commit, the registry's version; None for a file of a folder

    @property
    def label(self) -> str:
        """What the picker shows: starter-m-Q8_0 (6.3 MB)."""
        return f"{self.name} ({self.size / 1e6:.{1 if self.size < 1e8 else 0}f} MB)"

    @cached_property
    def revision(self) -> str | None:
        """Which one of its name it is: what it came by, else its digest, whose reading takes a second for 1 to 2 GB.

        None where another file has taken its place, or none: then nothing can tell any more.
        """
        if self.pinned:
            return self.pinned
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
                    return None
                return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
        except OSError:
            return None


def find_models(sources: str | Path) -> dict[str, Model]:
    """Return all models by name, in the order of the sources and below each in that of their names; no adapters.

    Args:
        sources: separated by commas, as SERVE_MODELS has them.

    Raises UserError when there is none, when two have one name, when a source cannot be had, and when a file is cut
    short or no GGUF: better said before the first visitor picks it.
    """
    models: dict[str, Model] = {}
    for file in find_files(str(sources)):
        if _is_adapter(file.path):
            continue
        if other := models.get(file.name):
            raise UserError(
                f"two models are called {file.name}: {other.path} and {file.path}:"
                " rename one of the files, or leave its source out of SERVE_MODELS"
            )
        models[file.name] = _model(file)
    if not models:
        raise UserError(f"{sources} has adapters alone, which are no models: export one with `tunesmith repro`")
    return models


def _is_adapter(path: Path) -> bool:
    """Return whether a GGUF is a LoRA adapter, which is nothing without the model that it is for."""
    with path.open("rb") as file:
        return ADAPTER in file.read(4096)  # writers put it right after the architecture


def _model(file: ModelFile) -> Model:
    status, metadata = file.path.stat(), llama.metadata(file.path)
    return Model(
        file.name,
        file.path,
        status.st_size,
        status.st_mtime_ns,
        context=int(metadata[f"{metadata['general.architecture']}.context_length"]),  # llama.cpp wants it there
        token_bytes=cache_bytes(metadata),
        quantization=llama.quantization(metadata),
        pinned=file.revision,
    )
