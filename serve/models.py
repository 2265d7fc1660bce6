"""Which models there are: the GGUF files below one folder."""

from dataclasses import dataclass
from pathlib import Path

from serve import llama
from serve.errors import UserError
from serve.memory import cache_bytes


@dataclass(frozen=True)
class Model:
    """A GGUF file that llama.cpp has found whole."""

    name: str  # its path below the folder, without .gguf: short, unique and stable
    path: Path
    size: int  # bytes
    context: int  # tokens that it was trained for
    token_bytes: int  # that a token takes in the KV cache

    @property
    def label(self) -> str:
        """What the picker shows: starter-m-Q8_0 (6.3 MB)."""
        return f"{self.name} ({self.size / 1e6:.{1 if self.size < 1e8 else 0}f} MB)"


def find_models(folder: Path) -> dict[str, Model]:
    """All models below the folder by name, in the names' order. Files and folders with a dot in front are passed over.

    Raises UserError when there is none, and when one is cut short or no GGUF: better said before the first visitor
    picks it.
    """
    paths = sorted(path for path in folder.rglob("*.gguf") if path.is_file() and not _hidden(path.relative_to(folder)))
    if not paths:
        raise UserError(f"no *.gguf file in {folder}: run `make repro` to make one, or set SERVE_MODELS to a folder")
    models = (_model(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths)
    return {model.name: model for model in models}


def _model(name: str, path: Path) -> Model:
    metadata = llama.metadata(path)
    context = int(metadata[f"{metadata['general.architecture']}.context_length"])  # llama.cpp wants it there
    return Model(name, path, path.stat().st_size, context, cache_bytes(metadata))


def _hidden(path: Path) -> bool:
    """Whether a part of the path starts with a dot, as the temporary names of files still being written do."""
    return any(part.startswith(".") for part in path.parts)
