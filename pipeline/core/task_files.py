"""The files that a task of lm-evaluation-harness is made of, where it is a YAML file of one's own.

They are its includes, the modules of its functions and the data that stands here. More may be found than the harness
reads, since any text that names a file here counts; what code puts a name together for is not found.
"""

import ast
from collections.abc import Iterator
from glob import glob, has_magic
from importlib.util import find_spec
from pathlib import Path

import yaml

from common.errors import UserError

HARNESS = "lm_eval"
# dataset_path where data_files stand here or at a URL; else they may be the Hub's.
BUILDERS = ("arrow", "csv", "json", "pandas", "parquet", "text", "webdataset", "xml")
FOLDERS = ("dataset_path", "data_dir")  # keys whose values may name a folder


class Function(str):
    """What `!function` names: a function, after the module that it is in."""


class TaskLoader(yaml.SafeLoader):
    """Reads a task's YAML as the harness does, and imports nothing."""


TaskLoader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))


def is_task_file(task: str) -> bool:
    """Return whether a task of the harness is a file, and no name that it knows."""
    return task.endswith((".yaml", ".yml"))


def task_files(tasks: list[str]) -> list[Path]:
    """Return the YAML files among tasks, and the files that they are made of, each once.

    Raises:
        UserError: a file is not here, or no YAML.
    """
    found: dict[Path, Path] = {}
    left = [Path(task) for task in tasks if is_task_file(task)]
    for path in left:
        require(path, "evaluate.tasks", "")
    while left:
        path = left.pop(0)
        if path.resolve() not in found:
            found[path.resolve()] = path
            left += named_in(path)
    return list(found.values())


def named_in(path: Path) -> list[Path]:
    """Return the files that a YAML file or a Python module names."""
    if is_task_file(path.name):
        return list(in_yaml(path))
    return list(in_module(path)) if path.suffix == ".py" else []


def in_yaml(path: Path) -> Iterator[Path]:
    """Yield what a task's YAML names.

    Raises:
        UserError: it is no YAML, or an include, a module or data is not here.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), TaskLoader)  # noqa: S506 -- a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is no task's YAML: {' '.join(str(error).split())}") from error
    folder = data_folder(content)
    for keys, text in texts(content):
        if isinstance(text, Function):
            yield from module_of(text, path)
        elif "include" in keys:
            yield require(path.parent / text, str(path), "include: ")
        elif "data_files" in keys and folder and "://" not in text:
            yield from data_files(folder / text, path)
        elif keys and keys[-1] in FOLDERS and Path(text).is_dir():
            yield from sorted(file for file in Path(text).rglob("*") if file.is_file())
        else:
            yield from files_here(text.partition(":")[0], path)


def data_folder(content: object) -> Path | None:
    """Return where a task's data_files are; None where they may be the Hub's."""
    if not isinstance(content, dict) or content.get("dataset_path") not in BUILDERS:
        return None
    options = content.get("dataset_kwargs")
    return Path(str(options.get("data_dir") or "")) if isinstance(options, dict) else Path()


def texts(content: object, keys: tuple[object, ...] = ()) -> Iterator[tuple[tuple[object, ...], str]]:
    """Yield each text in a YAML tree, after the keys that lead there."""
    if isinstance(content, str):
        yield keys, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from texts(value, (*keys, key))
    elif isinstance(content, list):
        for value in content:
            yield from texts(value, keys)


def module_of(function: str, path: Path) -> Iterator[Path]:
    """Yield the module of a function: beside the YAML or, as Python finds it, here; none for an installed one.

    Raises:
        UserError: there is no such module.
    """
    module = function.rpartition(".")[0]
    found = list(modules(module, [path.parent, Path()]))
    package = module.partition(".")[0]
    if not found and package != HARNESS and (not package or find_spec(package) is None):
        raise UserError(f"{path} names !function {function}, and there is no module {module or '(none)'} beside it")
    yield from found[:1]


def in_module(path: Path) -> Iterator[Path]:
    """Yield the modules here that a module imports, and the files that it names."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # which the harness says
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node):
                yield from modules(name, [path.parent, Path()])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from files_here(node.value, path)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the dotted names that an import may mean modules by; a relative one's as from beside."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return names
    return [*filter(None, [node.module]), *(f"{node.module}.{name}" if node.module else name for name in names)]


def modules(name: str, places: list[Path]) -> Iterator[Path]:
    """Yield the files of a module below each of some folders."""
    for place in places if name else ():
        beside = place.joinpath(*name.split("."))
        yield from filter(is_file, (beside.with_name(f"{beside.name}.py"), beside / "__init__.py"))


def data_files(pattern: Path, path: Path) -> list[Path]:
    """Return the files that a name or a pattern of a data set stands for.

    Raises:
        UserError: there are none.
    """
    if not has_magic(str(pattern)):
        return [require(pattern, str(path), "data_files: ")]
    found = sorted(filter(is_file, map(Path, glob(str(pattern), recursive=True))))  # noqa: PTH207 -- as datasets does it
    if not found:
        raise UserError(f"{path} names data_files: {pattern}, and no file here fits that")
    return found


def files_here(text: str, path: Path) -> Iterator[Path]:
    """Yield the file that a text names, from here or from beside the file that has it."""
    yield from filter(is_file, (Path(text), path.parent / text))


def is_file(path: Path) -> bool:
    """Return whether a path leads to a file; of texts that cannot be one, systems complain."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def require(path: Path, where: str, how: str) -> Path:
    """Return a file that has to be here.

    Raises:
        UserError: it is not.
    """
    if not is_file(path):
        raise UserError(f"{where} names {how}{path}, which is no file here")
    return path
