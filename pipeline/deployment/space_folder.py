"""The folder that a Space is made of: the server's code, how it is built and set, and the model or its name.

A Docker Space builds the serve image. A Gradio Space, which ZeroGPU wants, is installed from a list of packages and
runs app.py; the page is the same. Nothing in the folder is secret: what is, the Hub keeps by its name (space.py).
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict

import yaml

from common.errors import UserError
from common.files import atomic_path, sha256
from common.words import counted
from llama.source import cached_wheel
from pipeline.core.paths import MANIFEST
from pipeline.deployment import bundle, space_app
from pipeline.deployment.model import HubModel, LocalModel
from pipeline.publishing.hub import README, RepositoryFile

Sdk: TypeAlias = Literal["docker", "gradio"]
KINDS: Mapping[Sdk, str] = {"docker": "Docker Space on CPU basic", "gradio": "ZeroGPU Gradio Space"}
PYTHON = "3.12"  # of the versions that ZeroGPU has (3.10 and 3.12, by the Hub's documentation of 2026-07-21) ours
PORT = 7860  # that a Space shows
PLAIN = 10_000_000  # bytes; a larger file has to be in LFS
LARGE = ("*.gguf", "*.whl")
MADE_BY = "tunesmith deploy space"
TITLE = 50  # characters at most, since the Hub shows it in a line


class Entry(TypedDict):
    """A file, as the folder's list has it."""

    file: str  # its path there
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SpaceFolder:
    """What a folder is written from."""

    repository: str
    sdk: Sdk
    model: HubModel | LocalModel
    feedback: str | None  # a dataset on the Hub

    @property
    def settings(self) -> dict[str, str]:
        """The server's, as environment variables, beside its defaults."""
        settings = {"SERVE_PROXY": "1"}  # the Hub's, by which visitors come
        if self.sdk == "gradio":  # the image says the same
            settings |= {"SERVE_HOST": "0.0.0.0", "SERVE_PORT": str(PORT)}  # noqa: S104 - what a Space shows
        if isinstance(self.model, HubModel):
            settings["SERVE_MODELS"] = self.model.source
        if self.feedback:
            settings["SERVE_FEEDBACK_REPO"] = self.feedback
        return settings


def write_folder(space: SpaceFolder, folder: Path) -> list[RepositoryFile]:
    """Write the folder, whole or not at all, and return what is in it but its list, manifest.json.

    Raises:
        UserError: something else is there, or a plain file is larger than the Hub takes.
    """
    check_is_ours(folder)
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        if space.sdk == "docker":
            bundle.write_image_context(temporary, space.settings)
        else:
            write_app(temporary, space.settings)
        if isinstance(space.model, LocalModel):
            bundle.put_model(temporary, space.model.files, space.model.card)
        (temporary / ".gitattributes").write_text(
            "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE), encoding="utf-8"
        )
        (temporary / README).write_text(readme(space), encoding="utf-8")
        entries = [described(path, temporary) for path in sorted(temporary.rglob("*")) if path.is_file()]
        check_sizes(entries)
        (temporary / MANIFEST).write_text(manifest(entries), encoding="utf-8")
        bundle.open_to_all(temporary)
    return [RepositoryFile(folder / entry["file"], {**entry}) for entry in entries]


def check_is_ours(folder: Path) -> None:
    """Raise a `UserError` for a folder that holds what was not written here: it would be lost."""
    if not folder.exists():
        return
    listed = folder / MANIFEST
    if not (listed.is_file() and MADE_BY in listed.read_text(encoding="utf-8", errors="replace")):
        raise UserError(f"{folder} is there, and {MADE_BY} has not written it; name another with --out")


def write_app(folder: Path, settings: Mapping[str, str]) -> None:
    """Write what a Gradio Space runs and installs."""
    bundle.copy_parts((*bundle.CODE, bundle.CONSTRAINTS), folder)
    shutil.copyfile(space_app.__file__, folder / "app.py")
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    requirements = "".join(f"{line}\n" for line in bundle.locked_requirements(PYTHON))
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    if wheel := cached_wheel():
        (folder / "wheels").mkdir()
        bundle.link_or_copy(wheel, folder / "wheels" / wheel.name)


def readme(space: SpaceFolder) -> str:
    """Return the page of the Space's repository, whose head says how it is built."""
    head = yaml.safe_dump(front_matter(space), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {space.repository.partition('/')[2]}\n\n{about(space)}\n"


def front_matter(space: SpaceFolder) -> dict[str, object]:
    """Return what the Hub reads of README.md: its own keys, in the order of its reference."""
    head: dict[str, object] = {"title": space.repository.partition("/")[2][:TITLE], "emoji": "💬", "sdk": space.sdk}
    if space.sdk == "gradio":
        head |= {"python_version": PYTHON, "sdk_version": bundle.locked("gradio"), "app_file": "app.py"}
        head |= {"startup_duration_timeout": "1h"}  # where llama.cpp has to be compiled
    else:
        head |= {"app_port": PORT}
    if isinstance(space.model, HubModel):
        head["models"] = [space.model.repository]
    elif space.model.licence:
        head["license"] = space.model.licence
    return head


def about(space: SpaceFolder) -> str:
    """Return what a visitor of the repository is told."""
    commit = bundle.code_commit()
    code = f"Tunesmith's server (commit {commit})" if commit else "Tunesmith's server"
    kept = f"kept in the private dataset {space.feedback}" if space.feedback else "gone when the Space restarts"
    return (
        f"A chat with {named(space.model)}, on a CPU, by {code}. It was written by `{MADE_BY}`; "
        f"what is changed here is overwritten by the next.\n\nWhat visitors say of answers is {kept}."
    )


def named(model: HubModel | LocalModel) -> str:
    """Return a model's name for people."""
    if isinstance(model, HubModel):
        return f"{model.repository} at {model.commit[:12]}"
    return ", ".join(file.name for file in model.files[:3]) + (" and others" if len(model.files) > 3 else "")


def described(path: Path, folder: Path) -> Entry:
    """Return a file as the list has it."""
    return {"file": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256(path)}


def check_sizes(entries: Iterable[Entry]) -> None:
    """Raise a `UserError` for a file that the Hub would refuse in plain git."""
    for entry in entries:
        if entry["bytes"] > PLAIN and not any(Path(entry["file"]).match(pattern) for pattern in LARGE):
            raise UserError(f"{entry['file']} has {entry['bytes']:,} bytes, and the Hub takes {PLAIN:,} without LFS")


def manifest(entries: list[Entry]) -> str:
    """Return the list of what is written, by which the next deployment knows what is its own."""
    content = {"made_by": MADE_BY, "commit": bundle.code_commit(), "files": entries}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def contents(files: Iterable[RepositoryFile]) -> str:
    """Return how many files there are, and how large."""
    sizes = [file.entry["bytes"] for file in files]
    return f"{counted(len(sizes), 'file')}, {sum(sizes) / 1e6:,.1f} MB"
