"""The project's files, for tests of the whole repository."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def project_files(*paths: str) -> frozenset[str]:
    """What a clone holds of these files and folders, or of all, and what the next commit would add to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return frozenset(name for name in names if (ROOT / name).exists())
