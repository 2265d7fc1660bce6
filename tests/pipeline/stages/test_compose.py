"""`tunesmith compose` and `tunesmith adopt` as command lines, in a copy of conf/."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.core.adopted import Adopted, write
from pipeline.core.composition import compose

REPO = Path(__file__).parents[3]


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.stages.compose"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(REPO)} | environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    shutil.copy(REPO / "params.yaml", tmp_path)
    for name in ("starter", "general"):
        (tmp_path / name).symlink_to(REPO / name)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_without_params_they_are_written(project: Path) -> None:
    (project / "params.yaml").unlink()
    done = run(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "params.yaml").read_bytes() == (REPO / "params.yaml").read_bytes()


def test_with_nothing_changed_it_says_so(project: Path) -> None:
    done = run(project)
    assert (done.returncode, done.stdout) == (0, "params.yaml: unchanged\n")


def test_it_prints_each_changed_key_with_both_values(project: Path) -> None:
    edit(project / "conf/export/gguf.yaml", "[F16, Q8_0, Q4_K_M]", "[Q8_0]")
    with (project / "conf/adopted.yaml").open("a") as file:
        file.write("train: {lr: 1.25e-3}\n")
    lr = yaml.safe_load((project / "params.yaml").read_text())["train"]["lr"]
    done = run(project)
    assert done.stdout.splitlines() == [
        "  export.quantizations: ['F16', 'Q8_0', 'Q4_K_M'] -> ['Q8_0']",
        f"  train.lr: {lr} -> 0.00125",
        "params.yaml: 2 changed",
    ]
    assert yaml.safe_load((project / "params.yaml").read_text())["train"]["lr"] == 0.00125


def test_hand_edited_params_are_put_right(project: Path) -> None:
    edit(project / "params.yaml", "\n  seed: 42\n  save_steps", "\n  seed: 5\n  save_steps")
    with (project / "params.yaml").open("a") as file:
        file.write("mine: 1\n")
    done = run(project)
    assert done.stdout.splitlines() == [
        "  mine: 1 -> (gone)",
        "  train.seed: 5 -> 42",
        "params.yaml: 2 changed",
    ]
    assert (project / "params.yaml").read_bytes() == (REPO / "params.yaml").read_bytes()


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=tester", "-c", "user.email=tester@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_what_takes_an_applied_experiment_back_says_so(project: Path) -> None:
    git(project, "init", "-q")
    git(project, "add", "params.yaml")
    git(project, "commit", "-q", "-m", "start")
    start = git(project, "rev-parse", "HEAD")
    # As DVC keeps one: a commit on the one that it began at. The first one set nothing.
    git(project, "update-ref", f"refs/exps/{start[:2]}/{start[2:]}/plain-otter", start)
    edit(project / "params.yaml", "\n  seed: 42\n  save_steps", "\n  seed: 5\n  save_steps")
    git(project, "commit", "-q", "-a", "-m", "experiment")
    git(project, "update-ref", f"refs/exps/{start[:2]}/{start[2:]}/tidy-otter", "HEAD")
    git(project, "update-ref", "refs/exps/exec/EXEC_APPLY", "HEAD")
    git(project, "reset", "-q", "--soft", start)

    with (project / "conf/adopted.yaml").open("a") as file:
        file.write("export: {quantizations: [Q8_0]}\n")
    taken_back = (
        "experiment tidy-otter, which was applied here, is taken back; "
        "`tunesmith adopt train.seed=5` makes its settings last"
    )
    assert run(project).stdout.splitlines()[-2:] == ["params.yaml: 2 changed", taken_back]
    with (project / "conf/adopted.yaml").open("a") as file:
        file.write("train: {lr: 1e-3}\n")
    assert "otter" not in run(project).stdout  # it is not applied any more


def test_in_an_experiment_the_file_that_dvc_composed_is_kept(project: Path) -> None:
    edit(project / "params.yaml", "\n  seed: 42\n  save_steps", "\n  seed: 5\n  save_steps")
    before = (project / "params.yaml").read_bytes()
    done = run(project, DVC_EXP_NAME="tidy-otter")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (project / "params.yaml").read_bytes() == before


def test_an_experiment_says_what_it_overrides_of_what_is_adopted_and_what_stays(project: Path) -> None:
    adopted = Adopted({"model": "llama-3.2-3b", "runtime": "multi-gpu"}, {"train.lr": 1e-3, "train.max_steps": 60})
    write(project / "conf", adopted)
    chosen = compose(project / "conf", ["experiment=r5", "data=starter", "model.chat_template=null"])
    (project / "params.yaml").write_text(OmegaConf.to_yaml(chosen))
    done = run(project, DVC_EXP_NAME="tidy-otter")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "experiment=r5 overrides adopted model=llama-3.2-3b, train.lr=0.001; "
        "it leaves adopted runtime=multi-gpu, train.max_steps=60\n"
    )


def test_an_experiment_that_does_not_say_its_name_is_refused(project: Path) -> None:
    (project / "conf/experiment/mine.yaml").write_text("# @package _global_\ntrain: {lr: 1e-3}\n")
    done = run(project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "compose: conf/experiment/mine.yaml does not say its name; add the line `experiment: mine`\n"


def test_what_is_named_is_linked_and_what_is_not_there_changes_nothing(project: Path) -> None:
    (project / "template.jinja").write_text("a template")
    with (project / "conf/adopted.yaml").open("a") as file:
        file.write("model: {chat_template: template.jinja}\n")
    assert run(project).returncode == 0
    assert (project / "inputs/chat_template").read_text() == "a template"
    assert (project / "inputs/model").resolve() == REPO / "starter/models/starter-m"
    before = (project / "params.yaml").read_bytes()
    edit(project / "conf/adopted.yaml", "template.jinja", "another.jinja")
    done = run(project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "compose: model.chat_template names another.jinja, which is no file here\n"
    assert (project / "params.yaml").read_bytes() == before
    assert (project / "inputs/chat_template").read_text() == "a template"


def test_in_an_experiment_the_file_is_validated(project: Path) -> None:
    edit(project / "params.yaml", "\n  seed: 42\n  save_steps", "\n  seed: -1\n  save_steps")
    done = run(project, DVC_EXP_NAME="tidy-otter")
    assert done.returncode == 1
    assert done.stderr == "compose: train.seed is -1; it may be at least 0 and at most 4294967295\n"


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "conf/train/lora.yaml",
            "learning_rate: 1\n",
            "compose: train.learning_rate is not a key",
        ),
        ("conf/train/lora.yaml", "lr: 1\n", "compose: conf/ does not compose: "),  # twice the same key
        ("conf/train/lora.yaml", "a: [\n", "compose: conf/ does not compose: "),
        ("conf/train/lora.yaml", "seed: ${nowhere}\n", "compose: conf/ does not compose: "),
        ("conf/adopted.yaml", "train: {seed: '${nowhere}'}\n", "compose: the configuration does not resolve: "),
        ("conf/adopted.yaml", "defaults: [override /model: nope]\n", "compose: conf/ does not compose: In 'config'"),
        ("params.yaml", "a: [\n", "compose: params.yaml cannot be read: "),
    ],
)
def test_what_cannot_be_composed_ends_in_one_line_and_leaves_params(
    project: Path, file: str, text: str, said: str
) -> None:
    with (project / file).open("a") as opened:
        opened.write(text)
    before = (project / "params.yaml").read_bytes()
    done = run(project)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert (project / "params.yaml").read_bytes() == before


def test_a_file_that_is_no_utf8_ends_in_one_line(project: Path) -> None:
    (project / "conf/data/starter.yaml").write_bytes(b"name: caf\xe9\n")
    done = run(project)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("compose: conf/ does not compose: 'utf-8' codec can't decode byte 0xe9")


def test_without_conf_it_ends_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("compose: conf/ does not compose: Primary config directory not found.")
