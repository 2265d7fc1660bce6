"""The columns of a table of GGUF files: the evaluation's and the comparison's have the same ones."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pipeline.report.metrics import of

FileTree = Mapping[str, object]  # a file's figures, as JSON has them
BY_TASK = {"tasks": "{}", "task_flips": "flips, {}"}  # figures of the harness's tasks, and what stands above a task's


class Column(NamedTuple):
    """A column, and where its figure stands among those of a file."""

    head: str
    place: tuple[str, ...]


def file_columns(files: Iterable[FileTree]) -> list[Column]:
    """Return a column for each figure that any of the files was asked for: metrics, then the harness's tasks."""
    files = list(files)
    columns = [Column(one.head, (one.name,)) for one in of("file") if any(one.name in file for file in files)]
    for kind, head in BY_TASK.items():
        asked = [found for file in files if isinstance(found := file.get(kind), Mapping)]
        tasks = dict.fromkeys(str(task) for found in asked for task in found)
        columns += [Column(head.format(task), (kind, task)) for task in tasks]
    return columns


def shown_figures(file: FileTree) -> dict[str, object]:
    """Return those figures of a file that its table shows."""
    return {name: file[name] for name in dict.fromkeys(column.place[0] for column in file_columns([file]))}
