"""What a server needs of this repository, in a folder that is built where nothing else of it is."""

import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import requires
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common.errors import UserError
from pipeline.core.code import ROOT, git

DOCKERFILE, IGNORED = Path("Dockerfile.serve"), Path("Dockerfile.serve.dockerignore")
CONSTRAINTS = Path("constraints.txt")
CODE = (Path("common"), Path("llama"), Path("serve"))
BESIDE = (Path("LICENSE"), Path("NOTICE"), Path("pyproject.toml"), CONSTRAINTS, Path("scripts/setup.py"))
MODELS = Path("models/gguf")  # where the Dockerfile and the server itself look
LLAMA = "llama-cpp-python"


def copy_server(into: Path) -> None:
    """Copy the server's code, what it is installed by, and its licences.

    Raises:
        UserError: this is no clone of the repository.
    """
    if missing := [path for path in (DOCKERFILE, *BESIDE) if not (ROOT / path).is_file()]:
        raise UserError(f"{ROOT} has no {missing[0]}; deploy from a clone of the repository")
    for folder in CODE:
        shutil.copytree(ROOT / folder, into / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in BESIDE:
        (into / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, into / file)


def copy_dockerfile(into: Path, settings: Mapping[str, str]) -> None:
    """Write the Dockerfile under the name that it is looked for by, with settings of the server in its image."""
    shutil.copyfile(ROOT / IGNORED, into / ".dockerignore")
    text = (ROOT / DOCKERFILE).read_text(encoding="utf-8")
    for name, value in settings.items():
        quoted = re.sub(r'(["$\\])', r"\\\1", value)
        text += f'ENV {name}="{quoted}"\n'
    (into / "Dockerfile").write_text(text, encoding="utf-8")


def put_model(into: Path, files: Iterable[Path], card: Path | None) -> None:
    """Put a model's files where the server looks for them, without copying where they can be linked."""
    folder = into / MODELS
    folder.mkdir(parents=True)
    for file in files:
        link_or_copy(file.resolve(), folder / file.name)
    if card:
        shutil.copyfile(card, folder.parent / card.name)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; where that cannot be, a copy."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a system without links
        shutil.copyfile(source, target)


def code_commit() -> str | None:
    """Return the commit of the server's code, with `+` where files are others than that; None outside of git."""
    commit = git("rev-parse", "HEAD").strip()
    paths = [str(path) for path in (DOCKERFILE, IGNORED, *CODE, *BESIDE)]
    changed = git("status", "--porcelain", "--", *paths).strip()
    return f"{commit}+" if commit and changed else commit or None


# what the server is installed from, without a Dockerfile


def locked(package: str) -> str:
    """Return a package's version in the lock."""
    return _lock()[canonicalize_name(package)]


def locked_requirements(python: str) -> list[str]:
    """Return all packages that the server needs, each in its locked version; llama.cpp's wheel apart, which is ours.

    Args:
        python: the version that they are for, as 3.12, on Linux.
    """
    environment = {name: str(value) for name, value in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found: set[tuple[str, str]] = set()

    def add(text: str, extra: str = "") -> None:
        need = Requirement(text)
        if need.marker and not need.marker.evaluate(environment | {"extra": extra}):
            return
        name = canonicalize_name(need.name)
        for chosen in {"", *need.extras}:
            if (name, chosen) not in found:
                found.add((name, chosen))
                for inner in requires(name) or ():
                    add(inner, chosen)

    for text in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]:
        add(text)
    versions = _lock()
    return sorted(f"{name}=={versions[name]}" for name in {name for name, _ in found} - {LLAMA})


def _lock() -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / CONSTRAINTS).read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}
