"""What data/prepared was made from, which lies beside it, and whether that is what a configuration asks for."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from common.errors import UserError
from common.files import sha256
from pipeline.core.data_settings import DataSettings, question_files
from pipeline.core.mappings import changed_keys, flatten
from pipeline.core.paths import PREPARED
from pipeline.data.own_splits import find_all

MADE_FROM = "made_from.json"
TOKENIZER = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")  # which say how many tokens a row has
TO_PREPARE = "run `dvc repro prepare`, or `tunesmith prepare` with the same overrides"


class MadeFrom(TypedDict):
    """The settings of `data`, and the digest of each file that they name."""

    settings: dict[str, object]
    files: dict[str, str]


def made_from(settings: DataSettings, root: Path) -> MadeFrom:
    """Return the settings, and the digests of the files below `root` that they name.

    A dataset of the hub is known by its settings alone: what a branch stands at is not asked again.
    """
    names = find_all(settings, root)[0]
    names += question_files(settings.questions)
    names += [f"{settings.clean.tokenizer}/{name}" for name in TOKENIZER] if settings.clean.tokenizer else []
    files = {name: sha256(root / name) for name in names if (root / name).is_file()}
    return {"settings": asdict(settings), "files": files}


def read_made_from(path: Path) -> MadeFrom:
    """Return what was written of `made_from`.

    Raises:
        UserError: the file is damaged.
    """
    try:
        made: MadeFrom = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(made["settings"], dict) and isinstance(made["files"], dict):
            return made
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is damaged; {TO_PREPARE}")


def require_prepared(settings: DataSettings, folder: Path = Path()) -> None:
    """Refuse prepared data below a folder that is not what `settings` ask for.

    Where none of the files is here, as in a clone with DVC's cache, the settings alone count.

    Raises:
        UserError: it is missing or other; the message names what differs.
    """
    path = folder / PREPARED / MADE_FROM
    if not path.is_file():
        raise UserError(f"{path} is missing; first {TO_PREPARE}")
    made, requested = read_made_from(path), made_from(settings, Path())
    before, now = flatten(made["settings"]), flatten(requested["settings"])
    differ = [f"data.{key} is {now.get(key)!r} and was {before.get(key)!r}" for key in changed_keys(before, now)]
    if not differ and requested["files"]:
        differ = [f"{name} has changed, come or gone" for name in changed_keys(made["files"], requested["files"])]
    if differ:
        raise UserError(f"{PREPARED} is not what the configuration asks for: {', '.join(differ[:3])}; {TO_PREPARE}")
