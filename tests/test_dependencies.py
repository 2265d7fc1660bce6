"""What dvc.yaml says that a stage is made of is what it imports, and no more."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from pipeline.core.config import EvaluateSettings

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "llama", "pipeline", "serve")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# What changes no result of a stage, and so makes none due: files and errors, the configuration (whose values are
# watched as params), what is told of a run, and the processes that it runs in.
CORE = tuple(
    f"pipeline/core/{path.name}" for path in (ROOT / "pipeline/core").glob("*.py") if path.name != "formats.py"
)
WITHOUT_EFFECT = ("common", *CORE, "pipeline/tracking", "pipeline/workers", "pipeline/stages/run.py")
# Of single stages. What is imported from there is not followed.
NOT_FOLLOWED = {
    "compose": (),
    "prepare": (),
    "train": (
        "pipeline/gguf/preflight.py",  # tries the export on tiny weights: it may refuse, and is in no adapter
        *("pipeline/data/prepared.py", "pipeline/data/report.py"),  # compare digests with prepare's
    ),
    "export": ("pipeline/data/prepared.py",),
    "evaluate": ("pipeline/data/prepared.py",),  # compares digests with prepare's
    # Where bases are and what lineage.json holds: no figure.
    "report": ("pipeline/models/lineage.py", "pipeline/models/packaged.py"),
}


def module_file(name: str) -> Path | None:
    """The file of a dotted name, relative to the repository."""
    path = Path(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


def imports(path: Path) -> Iterator[Path]:
    """The project's files that a file imports anywhere in it, or names as a module that it runs."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("pipeline."):
            names = [node.value]
        for name in names:
            if name.split(".")[0] in PACKAGES and (found := module_file(name)):
                yield found


def under(path: Path, places: tuple[str, ...]) -> bool:
    return any(path == Path(place) or Path(place) in path.parents for place in places)


def reached(stage: str) -> set[Path]:
    """All files that a stage's code is in, but what has no effect on its results."""
    start = Path(f"pipeline/stages/{stage}.py")
    without = () if stage == "compose" else WITHOUT_EFFECT
    seen, left = {start}, [start]
    while left:
        for found in imports(left.pop()):
            if found not in seen and not under(found, (*without, *NOT_FOLLOWED[stage])):
                seen.add(found)
                left.append(found)
    return {path for path in seen if path.name != "__init__.py" or (ROOT / path).read_text().count("\n") > 1}


def code_deps(stage: str) -> tuple[str, ...]:
    return tuple(dep for dep in STAGES[stage]["deps"] if dep.split("/")[0] in PACKAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_every_file_that_a_stage_imports_is_under_one_of_its_deps(stage: str) -> None:
    allowed = (*code_deps(stage), *(("common", "pipeline/workers") if stage == "compose" else ()))
    assert sorted(str(path) for path in reached(stage) if not under(path, allowed)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_every_dep_of_code_is_imported(stage: str) -> None:
    found = reached(stage)
    assert [dep for dep in code_deps(stage) if not any(under(path, (dep,)) for path in found)] == []


def test_exceptions_name_what_is_there() -> None:
    places = {*WITHOUT_EFFECT, *(place for some in NOT_FOLLOWED.values() for place in some)}
    assert [place for place in places if not (ROOT / place).exists()] == []
    assert set(NOT_FOLLOWED) == set(STAGES)


def test_evaluate_is_due_for_every_setting_of_its_own_but_the_gate() -> None:
    named = {param.removeprefix("evaluate.") for param in STAGES["evaluate"]["params"] if param.startswith("evaluate.")}
    assert named == {field.name for field in fields(EvaluateSettings)} - {"gate"}
    assert "evaluate.gate" in STAGES["report"]["params"]
