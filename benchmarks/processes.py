"""Modules of this repository, run in other folders as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.inputs import REPOSITORY


def with_this_repository(**more: str) -> dict[str, str]:
    """Return an environment in which Python finds this repository's modules from any folder, with `more` variables."""
    places = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": places} | more


def run_module(folder: Path, module: str, *arguments: str) -> None:
    """Run a module in a folder; end this program with what it says where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, env=with_this_repository(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{module} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-2000:]}")
