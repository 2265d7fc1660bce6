"""What has changed here since a file was made: settings, data, base, code, libraries."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from common.errors import UserError
from pipeline.core.code import MAKES_FILES, SUFFIXES, digests, git
from pipeline.core.composition import CONF, compose
from pipeline.core.config import Config, load
from pipeline.core.learnt import settings_of_digits
from pipeline.core.mappings import changed_keys, flatten
from pipeline.core.records import FileLineage, Making
from pipeline.verification.inputs import find_base, find_data, find_start


def changes(lineage: FileLineage, workspace: Path) -> list[str]:
    """Return a line for each thing that is other in this workspace than it was for a file."""
    found = list(changed_settings(lineage, workspace / CONF))
    for find in (find_base, _find_data, find_start):
        try:
            find(lineage, (workspace,))
        except UserError as error:
            found.append(str(error))
    makings = {"train": lineage.trained, "export": lineage.exported}
    found += [f"code: {line}" for line in changed_code(lineage.exported)]
    libraries = {line for making in makings.values() if making for line in changed_libraries(making)}
    return [*found, *sorted(f"library: {line}" for line in libraries)]


def _find_data(lineage: FileLineage, roots: tuple[Path, ...]) -> None:
    if lineage.data:
        find_data(lineage.data, roots)


def changed_settings(lineage: FileLineage, conf: Path) -> Iterator[str]:
    """Yield the keys that a workspace's configuration has other values for than a file was made with."""
    if not conf.is_dir():
        return
    with suppress(UserError):  # which each stage says by itself
        here, there = settings_here(load(compose(conf))), lineage.settings
        for group, values in there.items():
            before, now = flatten(values, group), flatten(here[group], group)
            for key in changed_keys(before, now):
                if not (key.endswith("revision") and now.get(key) is None):  # a file names what a branch came to
                    yield f"setting: {key} was {before.get(key)!r} and is {now.get(key)!r}"


def settings_here(config: Config) -> dict[str, object]:
    """Return the settings that make files, by group."""
    return {
        "model": asdict(config.model),
        "data": asdict(config.data),
        "train": settings_of_digits(config.train),
        "export": {"importance_matrix": config.export.importance_matrix},
    }


def changed_code(making: Making) -> list[str]:
    """Return the files that are other here; the packages, where no repository has the commit."""
    here = digests()
    packages = [place for place in MAKES_FILES if here[place] != making.code.get(place)]
    if not packages or making.commit is None:
        return packages
    files = git("diff", "--name-only", making.commit, "--", *packages).splitlines()
    return [file for file in files if file.endswith(SUFFIXES)] or packages


def changed_libraries(making: Making) -> Iterator[str]:
    """Yield the libraries that are other versions here."""
    for name, recorded in making.libraries.items():
        if recorded != (here := version_here(name)):
            yield f"{name} was {recorded} and is {here}"


def version_here(name: str) -> str:
    """Return a library's version, `python` among them."""
    try:
        return python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return "not installed"
