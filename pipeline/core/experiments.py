"""DVC's experiments in git, as far as a workspace shows that one was applied to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from pipeline.core.code import git
from pipeline.core.mappings import changed_keys, flatten

HERE = Path()  # the working folder
REFERENCES = "refs/exps/??/*/*"  # the commit that it began at, then its name; stashes and the like have longer names


class Experiment(NamedTuple):
    """One of DVC's, and the keys that it set: those which the commit that it began at has otherwise."""

    name: str
    keys: list[str]


def applied(params: Path) -> Experiment | None:
    """Return the newest experiment whose settings a file holds and its commit does not; None where there is none.

    Args:
        params: of the working folder, as `dvc exp run` or `dvc exp apply` left it.
    """
    listed = git("for-each-ref", "--sort=-creatordate", "--format=%(refname)", REFERENCES, folder=HERE).split()
    asked = "".join(f"{reference}:./{params}\n" for reference in listed)
    held = git("hash-object", str(params), folder=HERE).strip()
    kept = git("cat-file", "--batch-check=%(objectname)", folder=HERE, said=asked).splitlines() if listed else []
    for reference, found in zip(listed, kept, strict=True):
        if found != held:
            continue
        _, _, *commit, name = reference.split("/")
        before, after = git("show", f"{''.join(commit)}:./{params}", folder=HERE), params.read_text(encoding="utf-8")
        if keys := changed_keys(_flat(before), _flat(after)):
            return Experiment(name, keys)
    return None


def _flat(text: str) -> Mapping[str, object]:
    return flatten(yaml.safe_load(text) or {})
