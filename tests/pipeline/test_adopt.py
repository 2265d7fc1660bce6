"""`python -m pipeline.adopt` as a command line, in a copy of conf/."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.compose import compose
from pipeline.config import Config, load

REPO = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    return tmp_path


def adopt(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.adopt", *overrides],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, text=True,
    )  # fmt: skip


def composed(folder: Path) -> Config:
    return load(compose(folder / "conf"))


def test_presets_and_values_last(project: Path) -> None:
    done = adopt(project, "model=starter-s", "train.lr=1e-3", "export.quantizations=[F16,Q8_0]")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "adopted model = starter-s",
        "adopted train.lr = 0.001",
        "adopted export.quantizations = ['F16', 'Q8_0']",
        "run `dvc repro` to use them",
    ]
    settings = composed(project)
    assert settings.model.path == "starter/models/starter-s"
    assert settings.train.lr == 1e-3  # above the recipe's, which is of the model
    assert settings.train.lora.r == 32
    assert settings.export.quantizations == ["F16", "Q8_0"]


def test_an_experiment_lasts_with_what_it_overrides(project: Path) -> None:
    assert adopt(project, "experiment=r1-3b", "train.max_steps=60").returncode == 0
    settings = composed(project)
    assert (settings.model.name, settings.data.name) == ("llama-3.2-3b", "finetome")
    assert (settings.train.max_steps, settings.train.save_steps) == (60, 300)


def test_an_edit_in_conf_does_not_take_them_back(project: Path) -> None:
    adopt(project, "train.lr=1e-3")
    (project / "conf/recipe/starter-m.yaml").write_text("# @package _global_\ntrain: {lr: 4e-3, max_steps: 50}\n")
    assert (composed(project).train.lr, composed(project).train.max_steps) == (1e-3, 50)


def test_the_next_adoption_takes_the_place_of_the_last(project: Path) -> None:
    adopt(project, "model=llama-3.2-1b-bnb-4bit", "train=qlora")
    assert adopt(project, "train.lr=1e-3").returncode == 0
    settings = composed(project)
    assert (settings.model.name, settings.train.method, settings.train.lr) == ("starter-m", "lora", 1e-3)
    # And so it is checked without the last one: on its own, qlora has no 4-bit base.
    adopt(project, "model=llama-3.2-1b-bnb-4bit", "train=qlora")
    assert adopt(project, "train=qlora").returncode == 1
    assert composed(project).model.load_in_4bit


def test_without_arguments_everything_is_taken_back(project: Path) -> None:
    before = composed(project)
    adopt(project, "model=starter-s", "data=local", "train.lr=1e-3")
    done = adopt(project)
    assert (done.returncode, done.stdout) == (0, "nothing adopted any more; run `dvc repro`\n")
    assert composed(project) == before
    assert (project / "conf/adopted.yaml").read_bytes() == (REPO / "conf/adopted.yaml").read_bytes()


def test_a_group_can_be_left_out(project: Path) -> None:
    assert adopt(project, "~recipe").returncode == 0
    assert composed(project).train.lora.r == 16


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=nope", "adopt: conf/ does not compose: In 'config': Could not find 'model/nope'"),
        ("train.nope=1", "adopt: conf/ does not compose: Could not override 'train.nope'"),
        ("+train.nope=1", "adopt: train.nope is not a key of the configuration; train has method, engine"),
        ("train.lr=fast", "adopt: train.lr is 'fast'; it must be a finite number"),
        ("train.lr=1e-3,2e-3", "adopt: conf/ does not compose: Ambiguous value for argument 'train.lr=1e-3,2e-3'"),
        ("train.lr", "adopt: cannot read the overrides: Error parsing override 'train.lr'"),
        ("~train.lr", "adopt: "),
        ("recipe=null", "adopt: conf/ does not compose: Config group override must be a string or a list"),
        ("hydra.sweep.dir=elsewhere", "adopt: conf/ does not compose: "),
    ],
)
def test_what_cannot_be_adopted_ends_in_one_line_and_changes_nothing(project: Path, override: str, said: str) -> None:
    assert adopt(project, "model=starter-s").returncode == 0
    before = (project / "conf/adopted.yaml").read_bytes()
    done = adopt(project, override)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert (project / "conf/adopted.yaml").read_bytes() == before
    assert [path.name for path in (project / "conf").glob(".*")] == []
