"""Which state of our own code something was made by."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

from common.files import sha256

ROOT = Path(__file__).parents[2]
# What any file that is trained and exported is made by. Templates of chats are code, too.
MAKES_FILES = (
    "common", "llama", "pipeline/core", "pipeline/data", "pipeline/gguf", "pipeline/models", "pipeline/stages",
    "pipeline/training", "pipeline/workers",
)  # fmt: skip
SUFFIXES = (".py", ".jinja")


def code_digest(*places: str) -> str:
    """Return the digest of modules.

    Args:
        places: files, and folders with all below them; relative to the repository.

    Returns:
        16 hexadecimal digits, other ones for any change.
    """
    return _digest({module for place in places for module in _modules(ROOT / place)}, ROOT)


def _modules(place: Path) -> list[Path]:
    return list(place.rglob("*.py")) if place.is_dir() else [place]


def digests(root: Path = ROOT) -> dict[str, str]:
    """Return a digest of each package in MAKES_FILES, as it is below a checkout."""
    files = {place: [file for file in (root / place).rglob("*") if file.suffix in SUFFIXES] for place in MAKES_FILES}
    return {place: _digest(own, root) for place, own in files.items()}


def _digest(files: Iterable[Path], root: Path) -> str:
    """Return a digest of files by their names below a folder and by what they hold."""
    listed = "".join(f"{file.relative_to(root).as_posix()} {sha256(file)}\n" for file in sorted(files))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def last_commit() -> str | None:
    """Return the last commit that changed what makes files, or conf/; None outside of a repository."""
    return git("log", "-1", "--format=%H", "--", *MAKES_FILES, "conf").strip() or None


def uncommitted() -> tuple[str, ...]:
    """Return the files of that code which are other ones than the last commit's."""
    lines = git("status", "--porcelain", "--untracked-files=all", "--", *MAKES_FILES).splitlines()
    return tuple(sorted(line[3:] for line in lines if line.endswith(SUFFIXES)))


def git(*arguments: str, folder: Path | None = None, said: str = "") -> str:
    """Return what git says of the repository that this code is in, or a folder; nothing where it is in none.

    Args:
        arguments: of git.
        folder: where it is asked.
        said: what it reads.
    """
    try:
        ran = subprocess.run(["git", "-C", str(folder or ROOT), *arguments], input=said, capture_output=True, text=True)
    except OSError:  # there is no git
        return ""
    return ran.stdout if ran.returncode == 0 else ""
