"""Which models there are: the GGUF files below one folder."""

from dataclasses import dataclass
from pathlib import Path

from serve import llama
from serve.errors import UserError


@dataclass(frozen=True)
class Model:
    """A GGUF file that llama.cpp has found whole."""

    name: str  # its path below the folder, without .gguf: short, unique and stable
    path: Path
    size: int  # bytes

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
    for path in paths:
        llama.check_file(path)
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return {name: Model(name, path, path.stat().st_size) for name, path in zip(names, paths, strict=True)}


def _hidden(path: Path) -> bool:
    """Whether a part of the path starts with a dot, as the temporary names of files still being written do."""
    return any(part.startswith(".") for part in path.parts)
