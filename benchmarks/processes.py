"""Modules of this repository, run in other folders as processes of their own, and copies of it to run them in."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from benchmarks.inputs import REPOSITORY


def with_this_repository(**more: str) -> dict[str, str]:
    """Return an environment in which Python finds this repository's modules from any folder, with `more` variables."""
    places = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": places} | more


def run_module(folder: Path, module: str, *arguments: str, allowed: Collection[int] = (0,), **variables: str) -> None:
    """Run a module in a folder; end this program with what it says where its status is none of those allowed."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder, env=with_this_repository(**variables), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode not in allowed:
        sys.exit(f"{module} {' '.join(arguments)}: {(done.stderr or done.stdout).strip()[-2000:]}")


# What stages under DVC need of this repository; no result of an earlier run is among it.
OF_STAGES = (
    ".dvc", ".dvcignore", ".gitignore", "common", "conf", "data", "dvc.yaml", "general", "hydra_plugins", "llama",
    "models", "params.yaml", "pipeline", "reports", "starter",
)  # fmt: skip


def copy_files(folder: Path, *paths: str) -> None:
    """Copy what git has or would take here, as it is now; of these paths, or all."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *paths],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def copy_repository(folder: Path) -> None:
    """Make a repository with this one's files, as they are now, in which stages can be run."""
    copy_files(folder, *OF_STAGES)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
