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
CODE = (Path("LICENSE"), Path("NOTICE"), Path("common"), Path("llama"), Path("serve"))  # what runs, with its terms
MODELS = Path("models/gguf")  # where the Dockerfile and the server itself look
WHEELS = Path("wheels")
LLAMA = "llama-cpp-python"
SPACE_EXTRAS = ("oauth", "mcp")
READABLE, ENTERED = 0o444, 0o111  # by everybody


def copy_parts(parts: Iterable[Path], into: Path) -> None:
    """Copy files and folders of this repository.

    Raises:
        UserError: this is no clone of it.
    """
    for part in parts:
        target = into / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        elif (ROOT / part).is_file():
            shutil.copyfile(ROOT / part, target)
        else:
            raise UserError(f"{ROOT} has no {part}; deploy from a clone of the repository")


def parts_of_image() -> list[Path]:
    """Return what the Dockerfile copies of this repository, but for what it copies if it is there: wheels and models.

    Raises:
        UserError: this is no clone of the repository.
    """
    if not (ROOT / DOCKERFILE).is_file():
        raise UserError(f"{ROOT} has no {DOCKERFILE}; deploy from a clone of the repository")
    lines = (ROOT / DOCKERFILE).read_text(encoding="utf-8").splitlines()
    copies = (line.split()[1:-1] for line in lines if line.startswith("COPY "))
    named = [word for words in copies if not any(word.startswith("--from") for word in words) for word in words]
    return sorted({Path(word) for word in named if "[" not in word and not word.startswith("--")})


def write_image_context(into: Path, settings: Mapping[str, str]) -> None:
    """Write the Dockerfile and what it copies, with settings of the server that are to stand in the image.

    Raises:
        UserError: this is no clone of the repository.
    """
    copy_parts(parts_of_image(), into)
    shutil.copyfile(ROOT / IGNORED, into / ".dockerignore")
    text = (ROOT / DOCKERFILE).read_text(encoding="utf-8")
    for name, value in settings.items():
        quoted = re.sub(r'(["$\\])', r"\\\1", value)
        text += f'ENV {name}="{quoted}"\n'
    (into / "Dockerfile").write_text(text, encoding="utf-8")


def put_wheels(into: Path) -> None:
    """Put wheels of llama.cpp that are shared with image builds (`make wheels`) where the Dockerfile looks for them."""
    for wheel in (ROOT / WHEELS).glob("llama_cpp_python-*/*/*.whl"):
        target = into / wheel.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(wheel, target)


def put_model(into: Path, files: Iterable[Path], card: Path | None) -> None:
    """Put a model's files where the server looks for them, without copying where they can be linked."""
    folder = into / MODELS
    folder.mkdir(parents=True)
    for file in files:
        link_or_copy(file.resolve(), folder / file.name)
    if card:
        shutil.copyfile(card, folder.parent / card.name)


def open_to_all(folder: Path) -> None:
    """Let every user read what is in a folder: whoever runs the server there is not who wrote it here."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        if mode & READABLE != READABLE or (path.is_dir() and mode & ENTERED != ENTERED):
            path.chmod(mode | (READABLE | ENTERED if path.is_dir() else READABLE))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that everybody may read a second name; make a copy of another, and where that cannot be."""
    try:
        if source.stat().st_mode & READABLE == READABLE:
            os.link(source, target)
            return
    except OSError:  # another disk, or a system without links
        pass
    shutil.copyfile(source, target)


def code_commit() -> str | None:
    """Return the last commit that changed the server, with `+` where files are others than that; None without git."""
    paths = [*map(str, (DOCKERFILE, CONSTRAINTS, *CODE))]
    commit = git("log", "-1", "--format=%H", "--", *paths).strip()
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
    others = bounds_of_space(versions, environment)
    named = {name for name, _ in found} - {LLAMA, *(pin for name in others for pin in pinned_by(name))}
    return sorted(f"{name}{others.get(name) or '==' + versions[name]}" for name in named)


def bounds_of_space(versions: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a Gradio Space bounds otherwise than the lock has it, by name: pip would refuse both at once.

    A Space installs its requirements together with `gradio[oauth,mcp]`.
    """
    needs = [
        need
        for need in map(Requirement, requires("gradio") or ())
        if need.marker and any(need.marker.evaluate({**environment, "extra": extra}) for extra in SPACE_EXTRAS)
    ]
    return {
        name: str(need.specifier)
        for need in needs
        if (name := canonicalize_name(need.name)) in versions and versions[name] not in need.specifier
    }


def pinned_by(package: str) -> set[str]:
    """Return what a package wants in one version alone: with another version of it, another one."""
    needs = map(Requirement, requires(package) or ())
    return {canonicalize_name(need.name) for need in needs if any(bound.operator == "==" for bound in need.specifier)}


def _lock() -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / CONSTRAINTS).read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}
