"""What data/prepared was made from, which lies beside it, and whether that is what a configuration asks for."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from common.errors import UserError
from common.files import sha256
from pipeline.core.code import ROOT
from pipeline.core.data_settings import DataSettings, SourceSettings, alone_as, question_files, sets_of
from pipeline.core.mappings import changed_keys, flatten
from pipeline.core.paths import GENERAL, PREPARED
from pipeline.core.records import DataOrigin, GeneralSet, GeneralSets, PrepareReport
from pipeline.data.own_splits import find_all
from pipeline.data.sources import find_files

MADE_FROM = "made_from.json"
TOKENIZER = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")  # which say how many tokens a row has
SETS = "sets.json"  # of general texts: what came of each, and what it is made from
TO_PREPARE = "run `dvc repro prepare`, or `tunesmith prepare` with the same overrides"


class Origin(TypedDict):
    """What a set is made from: its settings, and the digest of each file that they name."""

    settings: dict[str, object]
    files: dict[str, str]


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


def origin(report: PrepareReport) -> DataOrigin:
    """Return what the prepared data come from, for those who would make them again: with the hub's commits.

    Args:
        report: of prepare.
    """
    made = read_made_from(PREPARED / MADE_FROM)
    settings = {**made["settings"], "revision": report.revision or made["settings"].get("revision")}
    if isinstance(sources := settings.get("sources"), dict):
        mixed = {name: report.sources[name].revision or one.get("revision") for name, one in sources.items()}
        settings["sources"] = {name: {**one, "revision": mixed[name]} for name, one in sources.items()}
    return DataOrigin(settings=settings, files=made["files"], splits=report.digests)


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


def require_general(sets: Mapping[str, SourceSettings | None], folder: Path = Path()) -> None:
    """Refuse sets in data/forgetting that are not what a configuration asks for.

    Raises:
        UserError: they are missing or others; the message names the first.
    """
    if not sets_of(sets):
        return
    if not (folder / GENERAL / SETS).is_file():
        raise UserError(f"{folder / GENERAL / SETS} is missing; first {TO_PREPARE}")
    there, asked_for = GeneralSets.read(folder / GENERAL / SETS).sets, general_origins(sets, Path())
    for name in sorted(there.keys() | asked_for.keys()):
        if not _is_of(there.get(name), asked_for.get(name)):
            raise UserError(
                f"{GENERAL} is not what the configuration asks for: evaluate.general.{name} differs; {TO_PREPARE}"
            )


def _is_of(made: GeneralSet | None, wanted: Origin | None) -> bool:
    """Return whether a set is made from what is wanted; where none of its files is here, the settings alone count."""
    if made is None or wanted is None:
        return False
    return made.settings == wanted["settings"] and (not wanted["files"] or made.files == wanted["files"])


def general_origins(sets: Mapping[str, SourceSettings | None], root: Path) -> dict[str, Origin]:
    """Return what each set is made from."""
    found: dict[str, Origin] = {}
    for name, source in sets_of(sets).items():
        place = root_of(source, root)
        names = find_files(general_settings(source), place)[0] if source.files else []
        files = {file: sha256(place / file) for file in names if (place / file).is_file()}
        found[name] = {"settings": json.loads(json.dumps(asdict(source))), "files": files}
    return found


def root_of(source: SourceSettings, root: Path) -> Path:
    """Return below what a set's files are: `root`, or where it has none of them, our own repository if they ship there.

    So a run in another folder finds the sets that conf/ names.
    """
    ships = all((ROOT / name).is_file() for name in source.files)
    return ROOT if ships and not any(find_files(general_settings(source), root)) else root


def general_settings(source: SourceSettings) -> DataSettings:
    """Return the settings by which a set is read: its own, and nothing that `data` says of others."""
    return alone_as(source, DataSettings(name="general", source="files", own_splits=False, preferences="drop"))
