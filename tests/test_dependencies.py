"""What dvc.yaml says that a stage is made of is what it imports, and no more."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from imports import ANY, UnresolvedError, named_modules

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "llama", "pipeline", "serve")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# What changes no result of a stage, and so makes none due: files and errors, the configuration (whose values are
# watched as params), what is told of a run, and the processes that it runs in.
SHAPES = (
    "formats.py",
    "messages.py",
    "preferences.py",
    "tool_calls.py",
    "transcripts.py",
)  # by which rows become conversations
CORE = tuple(f"pipeline/core/{path.name}" for path in (ROOT / "pipeline/core").glob("*.py") if path.name not in SHAPES)
WITHOUT_EFFECT = ("common", *CORE, "pipeline/tracking", "pipeline/workers", "pipeline/stages/run.py")
# Of single stages. What is imported from there is not followed.
NOT_FOLLOWED = {
    "compose": (),
    "learn": ("pipeline/report",),  # for its page, which is no output: where nobody said anything there is none
    "prepare": ("pipeline/stages/data_report.py",),  # is run by hand alone
    "data_report": ("pipeline/data/prepared.py",),
    "train": (
        "pipeline/gguf/preflight.py",  # tries the export on tiny weights: it may refuse, and is in no adapter
        *("pipeline/data/prepared.py", "pipeline/data/report.py"),  # compare digests with prepare's
    ),
    "export": ("pipeline/data/prepared.py",),
    "evaluate": ("pipeline/data/prepared.py",),  # compares digests with prepare's
    # Where bases are and what lineage.json holds: no figure.
    "report": ("pipeline/models/lineage.py", "pipeline/models/packaged.py"),
}


# Runs what is not ours: llama.cpp's converter, whose version the manifest has.
RUNS_OTHERS = {"pipeline/gguf/converter.py": ("runpy.run_path(str(Path(tree) / script), run_name='__main__')",)}


def module_files(name: str) -> list[Path]:
    """The files of a dotted name, relative to the repository: a module's, or those of all below a package."""
    path = Path(*name.split("."))
    if path.name == ANY:
        return sorted(file.relative_to(ROOT) for file in (ROOT / path.parent).rglob("*.py"))
    return [found for found in (path.with_suffix(".py"), path / "__init__.py") if (ROOT / found).is_file()][:1]


def imports(path: Path) -> Iterator[Path]:
    """The project's files that a file imports anywhere in it, or names as a module that it runs."""
    is_package = path.name == "__init__.py"
    module = ".".join(path.parent.parts if is_package else path.with_suffix("").parts)
    source = (ROOT / path).read_text(encoding="utf-8")
    for name in named_modules(source, module, PACKAGES, is_package, RUNS_OTHERS.get(str(path), ())):
        if name.split(".")[0] in PACKAGES:
            yield from module_files(name)


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


def named(source: str, is_package: bool = False) -> set[str]:
    return set(named_modules(source, "pipeline.training.engines", PACKAGES, is_package))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import_module(f'{__name__}.{name}')", {"pipeline.training.engines.*"}),
        ("import_module(f'{__package__}.{name}')", {"pipeline.training.*"}),
        ("importlib.import_module('pipeline.data.split')", {"pipeline.data.split"}),
        ("import_module('pipeline.data.s' + rest)", {"pipeline.data.*", "pipeline.data.s"}),
        ("import_module(f'cudnn.sdpa.{module}')", {"cudnn.sdpa.*"}),
        ("from . import trl", {"pipeline.training", "pipeline.training.trl"}),
        ("ENGINES = {'data': 'pipeline.data.split', 'page': 'serve.page'}", {"pipeline.data.split", "serve.page"}),
    ],
)  # fmt: skip
def test_modules_loaded_by_name_are_found(source: str, names: set[str]) -> None:
    assert named(source) == names


@pytest.mark.parametrize(
    "call",
    [
        "import_module(name)",
        "import_module(f'{name}.engines')",
        "importlib.import_module(ENGINES[name])",
        "import_module('.trl', package)",
        "__import__(name)",
        "runpy.run_path(path)",
        "map(import_module, names)",
    ],
)
def test_a_module_loaded_by_a_name_that_cannot_be_told_is_refused(call: str) -> None:
    with pytest.raises(UnresolvedError, match=r"^line 2: "):
        named(f"import importlib, runpy\n{call}")
    with pytest.raises(UnresolvedError, match="under another name"):
        named("from importlib import import_module as load")


def test_the_engines_of_training_are_among_what_train_is_made_of() -> None:
    engines = {path.relative_to(ROOT) for path in (ROOT / "pipeline/training/engines").glob("[a-z]*.py")}
    assert len(engines) > 1
    assert engines <= reached("train")


def test_exceptions_name_what_is_there() -> None:
    places = {*WITHOUT_EFFECT, *(place for some in NOT_FOLLOWED.values() for place in some)}
    assert [place for place in places if not (ROOT / place).exists()] == []
    assert set(NOT_FOLLOWED) == set(STAGES)


def test_evaluate_and_report_are_due_for_a_gate() -> None:
    assert "evaluate" in STAGES["evaluate"]["params"]
    assert "evaluate.gate" in STAGES["report"]["params"]


def test_what_dvc_keeps_git_ignores_already() -> None:
    """Otherwise the first `dvc repro` of a clone would write into a file that is in git."""
    kinds = [content.get(kind, ()) for content in STAGES.values() for kind in ("outs", "metrics", "plots")]
    kept = [Path(out) for outs in kinds for out in outs if isinstance(out, str)]  # others say that they are not kept
    assert len(kept) > 10
    for out in kept:
        assert f"/{out.name}" in (ROOT / out.parent / ".gitignore").read_text().split(), out
