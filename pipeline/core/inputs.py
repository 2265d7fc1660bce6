"""The files and folders that the configuration names, as links under inputs/, where DVC's stages watch them.

dvc.yaml cannot hold what conf/ composes to: DVC reads it before `compose` runs. So `compose` links what is named,
wherever it stands, to names that dvc.yaml can hold, and DVC, which looks behind a link, sees every change there. A name
that is not used is a file that says so, since DVC wants each to be there. The links go with params.yaml into git. They
are no output in dvc.yaml: one that leads nowhere would keep DVC from running `compose`, which puts it right.
"""

import os
from collections.abc import Mapping
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path

from common.errors import UserError
from pipeline.core.config import Config
from pipeline.core.data_settings import DataSettings, SourceSettings, each_source, place_of, question_files, sets_of
from pipeline.core.paths import FEEDBACK, PREPARED
from pipeline.core.task_files import is_task_file, task_files

INPUTS = Path("inputs")
UNUSED = "The configuration names nothing here.\n"
FOLDERS = 6  # that the patterns of data's files may reach into; dvc.yaml lists as many

Targets = Path | list[Path] | None  # a link, a folder of links, or unused


def link_inputs(links: dict[str, Targets]) -> None:
    """Make inputs/ what the configuration names, as `named` gives it."""
    INPUTS.mkdir(exist_ok=True)
    for name, targets in links.items():
        place(INPUTS / name, targets)


def named(config: Config) -> dict[str, Targets]:
    """Return what the configuration names, by its name under inputs/.

    Raises:
        UserError: something that it names is not here, or cannot be watched.
    """
    data, model = config.data, config.model
    key_of = files_of_data(data)
    watched = dict(enumerate(folders({name: key for name, key in key_of.items() if has_magic(name)}), start=1))
    return {
        "model": folder("model.path", model.path),
        "merge_model": folder("model.merge_path", model.merge_path),
        "start_adapter": own_folder("train.start_adapter", config.train.start_adapter),
        "feedback": own_folder("learn.folder", config.learn.folder),
        "chat_template": file("model.chat_template", model.chat_template),
        "data_files": [there for name, key in key_of.items() if not has_magic(name) and (there := file(key, name))],
        **{f"data_folder_{number}": watched.get(number) for number in range(1, FOLDERS + 1)},
        "questions": files_of_questions(data),
        "tokenizer": folder("data.clean.tokenizer", data.clean.tokenizer),
        "tasks": files_of_tasks(config.evaluate.tasks),
        "general": files_of_general(config.evaluate.general),
        "votes": file_or_folder("evaluate.judge.votes", config.evaluate.judge.votes),
    }


def files_of_data(data: DataSettings) -> dict[str, str]:
    """Return the files and patterns that data is read from, by the keys that name them.

    But for what `learn` makes, which DVC watches as its output, and which need not be there yet.
    """
    return {
        name: f"{place_of(source)}.{key}"
        for source, settings in each_source(data).items()
        if settings.source == "files"
        for key in ("files", "validation_files", "test_files")
        for name in getattr(settings, key)
        if FEEDBACK not in Path(name).parents
    }


def files_of_general(sets: Mapping[str, SourceSettings | None]) -> list[Path]:
    """Return the files of general texts, which go by their names: a pattern would have to be watched.

    Raises:
        UserError: one is not here, or a pattern.
    """
    named = {name: f"evaluate.general.{key}.files" for key, one in sets_of(sets).items() for name in one.files}
    return [there for name, key in named.items() if (there := file(key, name))]


def files_of_questions(data: DataSettings) -> Targets:
    """Return the file of questions, or all of several.

    Raises:
        UserError: one is not here.
    """
    found = [there for name in question_files(data.questions) if (there := file("data.questions", name))]
    return found if isinstance(data.questions, list) else next(iter(found), None)


def files_of_tasks(tasks: list[str]) -> list[Path]:
    """Return what the harness's tasks are made of.

    Raises:
        UserError: some of it is not here.
    """
    for task in filter(is_task_file, tasks):
        file("evaluate.tasks", task)
    return task_files(tasks)


def file(key: str, name: str | None) -> Path | None:
    """Return the file that a key names.

    Raises:
        UserError: it is not here.
    """
    if name is not None and not Path(name).is_file():
        raise absent(key, name, "file")
    return None if name is None else Path(name)


def folder(key: str, name: str | None) -> Path | None:
    """Return the folder that a key names; None for what the hub has.

    Raises:
        UserError: it is not here, and no name of the hub's.
    """
    if name is None or (not Path(name).is_dir() and not name.startswith(("/", "."))):
        return None
    if not Path(name).is_dir():
        raise absent(key, name, "folder")
    return Path(name)


def own_folder(key: str, name: str | None) -> Path | None:
    """Return the folder that a key names, which has to be here.

    Raises:
        UserError: it is not.
    """
    if name is not None and not Path(name).is_dir():
        raise absent(key, name, "folder")
    return None if name is None else Path(name)


def file_or_folder(key: str, name: str | None) -> Path | None:
    """Return what a key names.

    Raises:
        UserError: it is not here.
    """
    if name is not None and not Path(name).exists():
        raise absent(key, name, "file or folder")
    return None if name is None else Path(name)


def folders(patterns: dict[str, str]) -> list[Path]:
    """Return the folders that patterns reach into, which are given with the keys that name them.

    Where they begin, and what is linked on their way, since DVC stops there.

    Raises:
        UserError: one is not here or holds what prepare writes, or they are more than dvc.yaml lists.
    """
    found: dict[Path, str] = {}
    for pattern, key in patterns.items():
        first = beginning(key, pattern)
        names = glob(pattern, recursive=True)  # noqa: PTH207 -- as prepare does it
        passed = {parent for name in names for parent in Path(name).parents if first in parent.parents}
        found |= dict.fromkeys([first, *(path for path in passed if path.is_symlink())], key)
    apart = sorted(path for path in found if not any(walk_reaches(other, path) for other in found))
    for path in apart:
        if path.absolute() in PREPARED.absolute().parents:
            raise UserError(
                f"{found[path]} has a pattern that begins in {path}, below which prepare writes; begin further down"
            )
    if len(apart) > FOLDERS:
        listed = ", ".join(map(str, apart))
        raise UserError(
            f"{found[apart[-1]]} reaches into {len(apart)} folders ({listed}), and DVC watches {FOLDERS}; name files"
        )
    return apart


def beginning(key: str, pattern: str) -> Path:
    """Return the folder that a pattern begins in.

    Raises:
        UserError: it is not here.
    """
    fixed = list(takewhile(lambda part: not has_magic(part), Path(pattern).parts))
    begun = Path(os.path.normpath(Path(*fixed)))
    if not begun.is_dir():
        raise absent(key, str(begun), "folder")
    return begun


def walk_reaches(folder: Path, path: Path) -> bool:
    """Return whether DVC comes to `path` on its walk of `folder`, which it does not leave by a link."""
    top = folder.absolute()
    between = [step for step in (path.absolute(), *path.absolute().parents) if top in step.parents]
    return bool(between) and not any(step.is_symlink() for step in between)


def absent(key: str, name: str, kind: str) -> UserError:
    """Return the error of a path that is not here."""
    hint = ""
    if name.startswith(".."):
        hint = "; a path out of the repository has to be absolute for experiments that run in a copy (--temp, --queue)"
    return UserError(f"{key} names {name}, which is no {kind} here{hint}")


def place(path: Path, targets: Targets) -> None:
    """Put a link, a folder of links or a note at `path`, in the place of what was put there before.

    Raises:
        UserError: something else is there.
    """
    clear(path)
    if isinstance(targets, list):  # a folder also where it is empty: git takes none in the place of a file
        path.mkdir()
        for number, target in enumerate(targets):
            place(path / f"{number}-{target.name}", target)
        if not targets:
            place(path / "unused", None)
    elif targets is None:
        path.write_text(UNUSED, encoding="utf-8")
    else:  # what is relative to the repository stays so, for copies and clones
        path.symlink_to(targets if targets.is_absolute() else os.path.relpath(targets, path.parent))


def clear(path: Path) -> None:
    """Remove a link, a note or a folder of links.

    Raises:
        UserError: the folder holds something else.
    """
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            if not entry.is_symlink() and entry.name != "unused":
                raise UserError(f"{entry} is no link that compose made; move it away")
            entry.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
