"""Which state of our own code something was made by."""

import hashlib
from pathlib import Path

from common.files import sha256

ROOT = Path(__file__).parents[2]


def code_digest(*places: str) -> str:
    """Return the digest of modules.

    Args:
        places: files, and folders with all below them; relative to the repository.

    Returns:
        16 hexadecimal digits, other ones for any change.
    """
    modules = sorted({module for place in places for module in _modules(ROOT / place)})
    digests = "".join(f"{module.relative_to(ROOT)} {sha256(module)}\n" for module in modules)
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _modules(place: Path) -> list[Path]:
    return list(place.rglob("*.py")) if place.is_dir() else [place]
