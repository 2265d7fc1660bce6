"""`tunesmith doctor`, in a workspace that is whole and in others that lack something."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_engine import IMAGE, Engine, recorded_engine

from pipeline.commands import doctor, doctor_containers
from pipeline.commands.doctor import CHECKS, Status
from pipeline.containers.cards import Card
from pipeline.core.adopted import Adopted, write

REPO = Path(__file__).parents[3]
FILES = ("params.yaml", "dvc.yaml", "pyproject.toml", "constraints.txt", ".dvc/config")
FOLDERS = ("conf", "inputs", "starter")
NOWHERE = "http://user:secret@127.0.0.1:9"
CARD = Card("GPU-1", "NVIDIA H200", "580.95.05", 8 * 10**9, 151 * 10**9)
NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere/engine.sock"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a fresh clone that doctor looks at, as the working folder."""
    folder = tmp_path / "workspace"
    for name in FOLDERS:
        shutil.copytree(REPO / name, folder / name, symlinks=True)
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return folder


def diagnose(**variables: str) -> tuple[int, dict[str, str], str]:
    """The status, each check's line, and the last line."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor"],
        env=os.environ | {"PYTHONPATH": str(REPO)} | variables, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    found = [re.fullmatch(r"(ok|note|problem) +(\w[\w.]*(?: \w+)*?)  +(.+)", line) for line in lines]
    assert all(found), done.stdout
    return done.returncode, {match[2]: f"{match[1]}: {match[3]}" for match in found if match}, last


def test_a_whole_workspace_has_no_problem_and_each_check_has_a_line(workspace: Path) -> None:
    signing = {f"GIT_{role}_{part}": "tester" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    status, lines, last = diagnose(HF_TOKEN="hf_of_the_test", HF_HUB_OFFLINE="1", **NO_ENGINE, **signing)
    assert (status, last) == (0, "`dvc repro` can run")
    assert list(lines) == list(CHECKS)
    assert [name for name, line in lines.items() if line.startswith("problem")] == []
    assert lines["repository"] == f"ok: git and DVC in {workspace}"
    assert lines["params.yaml"] == "ok: params.yaml is what conf/ composes to"
    assert lines["inputs"] == "ok: all that the configuration names is here"
    assert lines["git identity"] == "ok: there is one"
    assert lines["engine"] == "ok: none answers; runtime=docker alone wants one"
    assert lines["Hub"] == "ok: not asked (HF_HUB_OFFLINE)"
    assert lines["Hub token"] == "ok: there is one (not shown)"
    assert lines["MLflow"] == "ok: sqlite (mlflow.db)"


def test_a_broken_workspace_is_told_what_to_do_about_each_thing(workspace: Path, tmp_path: Path) -> None:
    shutil.rmtree(workspace / ".git")
    (workspace / "inputs/questions").unlink()
    (workspace / "inputs/questions").symlink_to("../gone.jsonl")
    for name, old, new in (
        ("params.yaml", "max_steps: ", "max_steps: 7"),
        ("constraints.txt", "rich==", "rich==1."),
    ):
        text = (workspace / name).read_text()
        assert old in text
        (workspace / name).write_text(text.replace(old, new))
    (workspace / "dvc.lock").write_text("schema: '2")
    status, lines, last = diagnose(
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        HF_HOME=str(tmp_path / "none"),
        HF_TOKEN="",
        HF_ENDPOINT=NOWHERE,
        MLFLOW_TRACKING_URI=NOWHERE,
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
        **NO_ENGINE,
    )
    assert (status, last) == (1, "3 problems in the way of `dvc repro`")
    assert lines["repository"].startswith("problem: not a git repository")
    assert lines["repository"].endswith("DVC works in a git repository; git init, or mend that")
    assert lines["DVC files"] == "problem: dvc.lock was cut short, as by a kill of DVC: tunesmith repro"
    assert lines["inputs"] == "problem: inputs/questions leads nowhere: tunesmith compose"
    assert re.fullmatch(r"note: 1 package not at the locked version: rich .*: make clean setup .*", lines["packages"])
    assert lines["converter"].endswith("is not cached: the first export fetches it by pip")
    assert lines["params.yaml"] == (
        "note: params.yaml is not what conf/ composes to (train.max_steps): dvc repro writes it anew"
    )
    assert lines["git identity"].endswith("git config user.name NAME && git config user.email ADDRESS")
    assert lines["Hub"].startswith("note: http://127.0.0.1:9 does not answer (")
    assert lines["Hub token"] == "note: none; gated models and tunesmith publish want one: export HF_TOKEN=…"
    assert lines["MLflow"].startswith("note: http://127.0.0.1:9 does not answer (")
    assert "secret" not in str(lines)


def test_elsewhere_than_in_a_workspace_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finding = doctor.repository()
    assert finding.status is Status.PROBLEM
    assert str(finding) == (
        f"no conf/config.yaml, dvc.yaml, .dvc/config in {tmp_path}: go to the folder that has dvc.yaml"
    )
    assert doctor.examine(doctor.packages).status is Status.PROBLEM  # and no traceback


def test_what_is_not_installed_is_a_problem(workspace: Path) -> None:
    text = (workspace / "pyproject.toml").read_text()
    (workspace / "pyproject.toml").write_text(text.replace('"psutil>=6"', '"psutil>=6", "no-such-package>=1"'))
    finding = doctor.packages()
    assert (finding.status, str(finding)) == (Status.PROBLEM, "no-such-package is not installed: make setup")


def test_what_the_configuration_names_and_is_not_there_is_a_problem(workspace: Path) -> None:
    (workspace / "starter/questions.jsonl").unlink()
    finding = doctor.examine(doctor.inputs)
    assert finding.status is Status.PROBLEM
    assert str(finding).startswith("data.questions names starter/questions.jsonl, which is no file here")
    (workspace / "starter/questions.jsonl").touch()
    assert doctor.inputs().status is Status.OK


def test_a_compiler_is_asked_for_as_the_set_up_asks(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++ -std=c++17")
    assert doctor.compiler().status is Status.NOTE  # llama.cpp is built
    monkeypatch.setenv("CXX", sys.executable)
    assert doctor.compiler() == doctor.ok(sys.executable)


def test_a_folder_that_is_another_copy_than_the_command_is_said(workspace: Path) -> None:
    assert doctor.code().status is Status.OK
    (workspace / "pipeline").mkdir()
    assert str(doctor.code()).endswith("python -m pipeline runs this one")


def test_a_gpu_that_a_build_for_cpus_does_not_see_is_said(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("this is no build for CPUs")
    assert doctor.gpu().status is Status.OK
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path)
    assert "is a build for CPUs" in str(doctor.gpu())


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {taken: "the chat"})
        assert str(doctor.ports()).startswith(f"{taken} (the chat) is taken: ")
    assert doctor.ports().status is Status.OK


def asked_for_containers(workspace: Path) -> None:
    """Has the configuration run stages in containers."""
    write(workspace / "conf", Adopted({"runtime": "docker"}, {}))


def test_an_engine_that_is_wanted_and_does_not_answer_is_a_problem(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NO_ENGINE["DOCKER_HOST"])
    assert CHECKS["engine"]().status is Status.OK
    asked_for_containers(workspace)
    finding = CHECKS["engine"]()
    assert finding.status is Status.PROBLEM
    assert str(finding).startswith("no Docker engine answers (No such file or directory); start one")


# What engines and nvidia-smi say where there are GPUs is written down (tests/helpers/recorded_engine.py): no machine
# here has both.


@pytest.fixture
def engine(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine of recorded answers, which the configuration asks for, and a card as nvidia-smi tells of it."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    monkeypatch.setattr(doctor_containers, "cards", lambda: [CARD])
    asked_for_containers(workspace)
    with recorded_engine(tmp_path) as recorded:
        yield recorded


def test_an_engine_its_image_and_the_cards_are_looked_at(engine: Engine) -> None:
    found = {name: CHECKS[name]() for name in doctor_containers.CHECKS}
    assert str(found["engine"]) == "Docker 28.2.2"
    assert str(found["image"]) == f"tunesmith-train, CUDA 13.0.2, {IMAGE['Id']}"
    assert str(found["driver"]) == "580.95.05, new enough for the image's CUDA 13.0.2"
    assert str(found["GPU memory"]) == "143 of 151 GB free on NVIDIA H200"
    assert str(found["GPU runtime"]).startswith("the engine names no runtime for GPUs: install the NVIDIA container")


def test_an_old_driver_a_full_card_and_a_lacking_image_are_problems(
    engine: Engine, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_containers, "cards", lambda: [CARD._replace(driver="535.183.01", used=CARD.total)])
    found = [CHECKS["driver"](), CHECKS["GPU memory"]()]
    del engine.answers[("GET", "/images/tunesmith-train/json")]
    found.append(CHECKS["image"]())
    assert [one.status for one in found] == [Status.PROBLEM] * 3
    write(workspace / "conf", Adopted({}, {}))
    assert CHECKS["GPU memory"]().status is Status.NOTE
