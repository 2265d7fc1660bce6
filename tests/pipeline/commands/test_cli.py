"""`tunesmith`: help, the ways in which a verb ends, what goes on to other programs, completion, what docs say of it."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from common.errors import Interrupted, UserError
from pipeline import cli
from pipeline.cli import processes
from pipeline.cli.stages import STAGES, makes_results

REPO = Path(__file__).parents[3]
PACKAGES = ("common", "llama", "pipeline", "serve")
SLOW_TO_IMPORT = {"torch", "transformers", "mlflow", "dvc", "hydra", "omegaconf", "gradio", "rich", "huggingface_hub"}
PASSING_ON = {"repro", "mlflow", *STAGES}
SAID_BY = [REPO / "README.md", REPO / "Makefile", *(REPO / "docs").glob("*.md"), *(REPO / "conf").rglob("*.yaml")]


def verbs() -> dict[str, Any]:
    """All verbs by what is typed: `promote`, `feedback export`."""

    def below(group: TyperGroup, path: str) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            yield f"{path}{name}", command
            if isinstance(command, TyperGroup):
                yield from below(command, f"{path}{name} ")

    root = get_command(cli.app)
    assert isinstance(root, TyperGroup)
    return dict(below(root, ""))


VERBS = verbs()


def options(verb: str) -> set[str]:
    return {option for parameter in VERBS[verb].params for option in parameter.opts if option.startswith("--")}


def tunesmith(*arguments: str, cwd: Path = REPO, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=cwd, env=os.environ | {"PYTHONPATH": str(REPO)} | variables, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_a_line_of_purpose_and_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*verb.split(), "--help"]) == 0
    said, _ = capsys.readouterr()
    assert said.startswith(f"Usage: tunesmith {verb} ")
    if not isinstance(VERBS[verb], TyperGroup):
        assert re.search(rf"Examples:\n +tunesmith {verb}\b", said)


def test_the_list_of_verbs_says_the_whole_purpose_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    listed = re.findall(r"^  ([a-z]+) +(\S.*)$", capsys.readouterr().out.partition("Commands:")[2], re.MULTILINE)
    assert [verb for verb, _ in listed] == [verb for verb in VERBS if " " not in verb]
    assert [purpose for _, purpose in listed if not purpose.endswith(".") or purpose.endswith("...")] == []


def test_each_stage_is_a_verb_but_that_which_prepare_runs() -> None:
    files = {path.stem for path in (REPO / "pipeline/stages").glob("*.py")}
    assert files - {"__init__", "run"} == {"compose", "data_report", *STAGES}
    assert set(VERBS) >= {"compose", *STAGES}


def test_the_examples_of_help_are_commands_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in VERBS:
        assert cli.run([*verb.split(), "--help"]) == 0
    require_known(capsys.readouterr().out, "help")


@pytest.mark.parametrize("path", SAID_BY, ids=lambda path: str(path.relative_to(REPO)))
def test_what_the_docs_call_is_there(path: Path) -> None:
    require_known(path.read_text(encoding="utf-8"), str(path))


def require_known(text: str, where: str) -> None:
    """Every `tunesmith VERB … --option` of a text names a verb, and options of it."""
    for line in re.findall(r"\btunesmith (?=[a-z]+\b)([^`\n#&]*)", text):
        words = line.split()
        verb = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
        assert verb in VERBS, f"{where}: tunesmith {line}"
        if verb not in PASSING_ON:
            named = set(re.findall(r"(?<!\S)--[a-z-]+", line))
            assert named <= options(verb) | {"--help"}, f"{where}: tunesmith {line}"


def test_the_options_that_pages_list_are_those_of_their_verbs() -> None:
    for page, verb in (("publish", "publish"), ("data", "data look")):
        listed = set(re.findall(r"^\| `(--.*?)` \|", (REPO / f"docs/{page}.md").read_text(), re.MULTILINE))
        assert {option for cell in listed for option in re.findall(r"--[a-z]+", cell)} == options(verb)


def test_the_docs_speak_of_the_command_and_of_no_modules() -> None:
    for path in [REPO / "README.md", *(REPO / "docs").glob("*.md")]:
        if path.name != "architecture.md":
            assert re.findall(r"python -m (?!benchmarks|llama.harness)\S+", path.read_text(encoding="utf-8")) == [], (
                path
            )


def test_help_needs_none_of_what_verbs_do() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "--help"], cwd=REPO, capture_output=True, text=True
    )
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "pipeline.cli.app" in imported
    assert imported & SLOW_TO_IMPORT == set()


@pytest.mark.parametrize("arguments", [["train", "--help"], ["evaluate", "x=1", "-h"], ["repro", "--help"]])
def test_help_of_a_stage_is_ours_and_runs_nothing(tmp_path: Path, arguments: list[str]) -> None:
    done = tunesmith(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: tunesmith {arguments[0]} ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("stage", "line"), [("compose", "usage: compose"), ("prepare", "prepare is powered by")])
def test_help_of_a_stage_that_is_called_by_its_module_runs_nothing(tmp_path: Path, stage: str, line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"pipeline.stages.{stage}", "--help"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "tunesmith: No such command 'trian'. Did you mean 'train', 'turn'? (see `tunesmith --help`)"),
        (
            ["promote", "--forse"],
            "promote: No such option: --forse (Possible options: --force) (see `tunesmith",
        ),
        (["publish"], "publish: Missing argument 'OWNER/NAME' (see `tunesmith publish --help`)"),
        (["doctor", "x"], "doctor: Got unexpected extra argument(s) (x) (see `tunesmith doctor --help`)"),
        (
            ["compose", "train.lr=1"],
            "compose: Got unexpected extra argument(s) (train.lr=1) (see `tunesmith comp",
        ),
        (
            ["feedback", "export", "--folder", "x"],
            "feedback export: Missing option '--out' (see `tunesmith feedback e",
        ),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_in_one_line_with_a_hint(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["summary"], "summary: reports/evaluation.json is missing; run `dvc repro report` first"),
        (
            ["adopt", "train.nope=1"],
            "adopt: conf/ does not compose: train.nope is not a key of the configuration; train has ",
        ),
        (["promote", "--force", "--rollback"], "promote: --force and --rollback exclude each other; give one of them"),
        (["publish", "a/b", "--private", "--public"], "publish: --private and --public exclude each other"),
        (["feedback", "summary", "--folder", "nowhere"], "feedback summary: no feedback-*.jsonl in nowhere"),
    ],
)
def test_what_is_wrong_outside_ends_in_one_line_of_the_verb_and_status_1(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf").symlink_to(REPO / "conf")
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no"), 1, "summary: no\n"),
        (Interrupted("resumable"), 75, "summary: resumable\n"),
        (KeyboardInterrupt(), 130, "summary: interrupted\n"),
        (KeyboardInterrupt("the same command goes on"), 130, "summary: interrupted; the same command goes on\n"),
    ],
)
def test_the_status_says_what_may_be_done_about_it(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("pipeline.commands.summary.run", fail)
    assert cli.run(["summary"]) == status
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["train", "-m", "train.lr=1e-4,2e-4", "--config-dir", ".", "-cn", "params"], "pipeline.stages.train"),
        (["prepare", "data.files=[a b.jsonl]", "+x={a: 1}", "~recipe", "hydra.run.dir=."], "pipeline.stages.prepare"),
        (["export", "--cfg=job", "-p", "export", "--hydra-help", "--resolve"], "pipeline.stages.export"),
        (["compose"], "pipeline.stages.compose"),
        (["serve"], "serve"),
    ],
)
def test_arguments_of_other_programs_reach_them_unchanged(
    arguments: list[str], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Sequence[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, line: called.append(line))
    cli.run(arguments)
    assert called == [[sys.executable, "-m", module, *arguments[1:]]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The files that compose and prepare read."""
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    shutil.copytree(REPO / "starter", tmp_path / "starter")
    return tmp_path


def test_stages_run_with_the_overrides_that_they_are_given(workspace: Path) -> None:
    done = tunesmith("compose", cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert (workspace / "params.yaml").is_file()
    done = tunesmith("prepare", "data.max_rows=60", cwd=workspace)
    assert done.returncode == 0, done.stderr
    splits = json.loads((workspace / "reports/prepare.json").read_text())["splits"]
    assert sum(split["rows"] for split in splits.values()) == 60
    done = tunesmith("prepare", "data.format=nope", cwd=workspace)
    assert done.returncode == 1
    assert done.stderr.startswith("prepare: data.format is 'nope'")
    done = tunesmith("prepare", "data.max_rows=7", "--cfg", "job", "--package", "data", cwd=workspace)
    assert "max_rows: 7\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "has_results"),
    [([], True), (["--force"], True), (["train"], False), (["-s", list(STAGES)[-1]], True), (["--dry"], False)],
)
def test_repro_prints_results_where_they_are_new(arguments: list[str], has_results: bool) -> None:
    assert makes_results(arguments) == has_results


CHILD = """
import signal, sys, time
def save(number, _):
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, save)
print("ready", *sys.argv[1:], flush=True)
signal.pause()
"""


@pytest.mark.parametrize(
    ("number", "to_all", "status"), [(signal.SIGINT, True, 3), (signal.SIGTERM, False, 128 + signal.SIGTERM)]
)
def test_what_a_verb_waits_for_ends_in_its_own_time(
    tmp_path: Path, number: signal.Signals, to_all: bool, status: int
) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    script = "import sys; from pipeline.cli.processes import wait_for; sys.exit(wait_for('child', '--its-own'))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": f"{REPO}:{tmp_path}"},
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready --its-own\n"
    (os.killpg if to_all else os.kill)(process.pid, number)
    assert process.wait(60) == status
    assert process.stdout.read() == ("saved\n" if to_all else "")


def test_what_a_verb_starts_finds_this_python() -> None:
    path = processes.with_own_python()["PATH"]
    assert shutil.which("python", path=path) == str(Path(sys.executable).parent / "python")


def test_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    launcher = tmp_path / "tunesmith"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline "$@"\n')
    launcher.chmod(0o755)
    script = """
    eval "$(_TUNESMITH_COMPLETE=source_bash tunesmith)"
    complete -p tunesmith
    for line in "tunesmith p" "tunesmith promote --r"; do
        COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _tunesmith_completion tunesmith
        echo "${COMPREPLY[@]}"
    done
    """
    done = subprocess.run(
        ["bash", "-c", script], env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPO)},
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    declared, *completed = done.stdout.splitlines()
    assert declared.endswith("_tunesmith_completion tunesmith"), done.stderr
    assert completed == ["prepare promote publish", "--rollback"]


def test_the_project_installs_the_command() -> None:
    assert re.search(r'^tunesmith = "pipeline.__main__:main"$', (REPO / "pyproject.toml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("given", ["train.max_stepz=5", "model=nope", "+foo=1", "train.lr=[1"])
def test_repro_takes_no_settings_and_says_where_they_go(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["repro", given]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"repro: {given} is a setting, and the arguments here are stages: `tunesmith adopt ")
    assert said.count("\n") == 1


def messages() -> Iterator[tuple[str, str]]:
    """All texts of our programs but their docstrings, with where they stand."""
    for path in (path for package in PACKAGES for path in (REPO / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield f"{path.relative_to(REPO)}:{node.lineno}", node.value


def test_messages_name_the_verb_where_there_is_one() -> None:
    other = re.compile(
        rf"\bmake ({'|'.join(verb for verb in VERBS if ' ' not in verb)})\b|python -m pipeline\.(?!models)"
    )
    assert [(place, text) for place, text in messages() if other.search(text)] == []


def test_verbs_that_messages_name_are_there() -> None:
    naming = [(place, text) for place, text in messages() if "`tunesmith " in text]
    assert len(naming) > 10
    for place, text in naming:
        require_known(text, place)
