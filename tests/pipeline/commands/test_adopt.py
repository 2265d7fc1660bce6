"""`tunesmith adopt` as a command line, in a copy of conf/."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.adopted import meeting
from pipeline.core.composition import compose
from pipeline.core.config import Config, load

REPO = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    return tmp_path


def adopt(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "adopt", *overrides],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(REPO)}, capture_output=True, text=True,
    )  # fmt: skip


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def composed(folder: Path) -> Config:
    return load(compose(folder / "conf"))


def test_presets_and_values_last(project: Path) -> None:
    done = adopt(project, "model=starter-s", "train.lr=1e-3", "export.quantizations=[F16,Q8_0]")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "adopted model = starter-s (conf/: starter-m)",
        "adopted train.lr = 0.001 (conf/: 0.005)",
        "adopted export.quantizations = ['F16', 'Q8_0'] (conf/: ['F16', 'Q8_0', 'Q4_K_M'])",
        "run `dvc repro` to use them",
    ]
    settings = composed(project)
    assert settings.model.path == "starter/models/starter-s"
    assert settings.train.lr == 1e-3  # above the recipe's, which is of the model
    assert settings.train.lora.r == 32
    assert settings.export.quantizations == ["F16", "Q8_0"]


def test_an_edit_in_conf_does_not_take_them_back(project: Path) -> None:
    adopt(project, "train.lr=1e-3")
    (project / "conf/recipe/starter-m.yaml").write_text("# @package _global_\ntrain: {lr: 4e-3, max_steps: 50}\n")
    assert (composed(project).train.lr, composed(project).train.max_steps) == (1e-3, 50)


def test_the_next_adoption_adds_to_the_last(project: Path) -> None:
    adopt(project, "model=llama-3.2-1b", "data=finetome", "train.lr=1e-3")
    done = adopt(project, "runtime=multi-gpu", "train.lr=2e-3")
    assert done.stdout.splitlines() == [
        "train.lr = 0.001 goes: train.lr=0.002 takes its place",
        "adopted model = llama-3.2-1b (conf/: starter-m)",
        "adopted data = finetome (conf/: starter)",
        "adopted runtime = multi-gpu (conf/: local)",
        "adopted train.lr = 0.002 (conf/: 0.0002)",
        "run `dvc repro` to use them",
    ]
    settings = composed(project)
    assert (settings.model.name, settings.data.name) == ("llama-3.2-1b", "finetome")
    assert (settings.runtime.processes, settings.train.lr) == ("auto", 2e-3)


def test_another_preset_takes_the_place_of_the_first_with_the_values_that_fit_it(project: Path) -> None:
    assert (
        adopt(project, "model=llama-3.2-1b", "train=qlora", "model.load_in_4bit=true", "train.lr=1e-3").returncode == 0
    )
    done = adopt(project, "model=starter-s", "train=lora")
    assert done.stdout.splitlines() == [
        "model = llama-3.2-1b goes: model=starter-s takes its place",
        "train = qlora goes: train=lora takes its place",
        "model.load_in_4bit = True goes: it does not fit model=starter-s",
        "train.lr = 0.001 stays, under train=lora",
        "adopted model = starter-s (conf/: starter-m)",
        "adopted train = lora (conf/: lora)",
        "adopted train.lr = 0.001 (conf/: 0.005)",
        "run `dvc repro` to use them",
    ]
    assert (composed(project).model.load_in_4bit, composed(project).train.lr) == (False, 1e-3)


def test_without_arguments_it_lists_what_is_adopted_and_changes_nothing(project: Path) -> None:
    done = adopt(project)
    assert (done.returncode, done.stdout) == (0, "nothing is adopted\n")
    adopt(project, "experiment=r5", "data=local")
    before = files(project)
    done = adopt(project)
    assert done.stdout.splitlines() == [
        "adopted experiment = r5 (conf/: None)",
        "adopted data = local (conf/: starter)",
    ]
    assert files(project) == before


def test_one_can_be_dropped_and_all(project: Path) -> None:
    before = composed(project)
    adopt(project, "model=starter-s", "data=local", "train.lr=1e-3", "train.lora.r=8")
    assert adopt(project, "--drop", "model", "--drop", "train.lr", "train.max_steps=9").returncode == 0
    settings = composed(project)
    assert (settings.model.name, settings.data.name) == ("starter-m", "local")
    assert (settings.train.lr, settings.train.lora.r, settings.train.max_steps) == (5e-3, 8, 9)
    done = adopt(project, "--drop", "train.lr")
    assert (done.returncode, done.stderr) == (
        1,
        "adopt: train.lr is not adopted; adopted is: data, train.lora.r, train.max_steps\n",
    )
    done = adopt(project, "--reset")
    assert (done.returncode, done.stdout) == (0, "nothing is adopted\nrun `dvc repro`\n")
    assert composed(project) == before
    for name in ("adopted.yaml", "experiment/adopted.yaml"):
        assert (project / "conf" / name).read_bytes() == (REPO / "conf" / name).read_bytes()


def test_an_experiment_lasts_with_what_it_overrides(project: Path) -> None:
    assert adopt(project, "experiment=r1-3b", "train.max_steps=60").returncode == 0
    settings = composed(project)
    assert (settings.model.name, settings.data.name) == ("llama-3.2-3b", "finetome")
    assert (settings.train.max_steps, settings.train.save_steps) == (60, 300)


def test_what_an_experiment_sets_goes_when_it_is_adopted_and_stands_above_it_when_adopted_later(project: Path) -> None:
    adopt(project, "model=llama-3.2-3b", "runtime=multi-gpu", "train.lr=1e-3")
    done = adopt(project, "experiment=r5", "train.max_steps=100")
    assert done.stdout.splitlines() == [
        "model = llama-3.2-3b goes: experiment=r5 sets it",
        "train.lr = 0.001 goes: experiment=r5 sets it",
        "adopted runtime = multi-gpu (conf/: local)",
        "adopted experiment = r5 (conf/: None)",
        "adopted train.max_steps = 100 (conf/: 60)",
        "run `dvc repro` to use them",
    ]
    settings = composed(project)
    assert (settings.model.name, settings.train.lr, settings.train.max_steps) == ("llama-3.2-1b", 2e-4, 100)
    adopt(project, "model=llama-3.2-3b")
    settings = composed(project)
    assert (settings.model.name, settings.train.scheduler, settings.train.max_steps) == ("llama-3.2-3b", "linear", 100)


def test_settings_stand_above_one_another_in_the_order_that_the_docs_name(project: Path) -> None:
    adopt(project, "model=starter-s", "data=alpaca", "train.lr=1e-3", "train.max_steps=70")
    adopted, experiment = composed(project), load(compose(project / "conf", ["experiment=r3"]))
    assert (adopted.model.name, adopted.train.lr, adopted.train.lora.r) == ("starter-s", 1e-3, 32)  # 32 is the recipe's
    # The recipe follows the model that is chosen in the end: r3 has another, and sets the rank itself.
    assert (experiment.model.name, experiment.data.name) == ("llama-3.2-1b", "finetome")
    assert (experiment.train.lr, experiment.train.lora.r, experiment.train.eval_steps) == (2e-4, 16, 100)
    assert experiment.train.max_steps == 70  # which r3 leaves alone
    last = load(compose(project / "conf", ["experiment=r3", "model=starter-m", "train.lr=3e-3"]))
    assert (last.model.name, last.train.lr, last.train.max_length) == ("starter-m", 3e-3, 256)


def test_another_experiment_takes_the_place_of_the_adopted_one(project: Path) -> None:
    adopt(project, "experiment=r5", "runtime=multi-gpu")
    settings = load(compose(project / "conf", ["experiment=r3"]))
    assert (settings.train.max_steps, settings.train.optimizer) == (None, "adamw_torch_fused")  # as without r5
    assert settings.runtime.processes == "auto"


def test_a_group_can_be_left_out(project: Path) -> None:
    assert adopt(project, "~recipe").returncode == 0
    assert composed(project).train.lora.r == 16
    assert meeting(project / "conf", "r5") == "experiment=r5 leaves adopted recipe=[]"
    assert adopt(project, "--drop", "recipe").returncode == 0
    assert composed(project).train.lora.r == 32


@pytest.mark.parametrize("content", ["# @package _global_\ndefaults: [override /model]\n", "- train.lr\n", "train"])
def test_a_file_that_was_edited_by_hand_is_refused_with_the_way_out(project: Path, content: str) -> None:
    (project / "conf/adopted.yaml").write_text(content)
    done = adopt(project, "train.lr=1e-3")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "adopt: conf/adopted.yaml or conf/experiment/adopted.yaml is not as adopt writes it ("
    )
    assert adopt(project, "--reset").returncode == 0


def test_outside_of_the_repository_it_ends_in_one_line(tmp_path: Path) -> None:
    done = adopt(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "adopt: there is no folder conf here or above; run this in the repository\n"


def test_from_a_folder_of_the_repository_it_does_the_same(project: Path) -> None:
    inner = project / "data/raw"
    inner.mkdir(parents=True)
    done = adopt(inner, "train.lr=1e-3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == f"in {project}, which paths are relative to"
    assert composed(project).train.lr == 1e-3


def test_a_key_that_is_given_twice_is_refused(project: Path) -> None:
    before = files(project)
    done = adopt(project, "train.lr=1e-3", "train.lr=2e-3")
    assert (done.returncode, done.stderr) == (1, "adopt: train.lr is given 2 times; give it once\n")
    assert files(project) == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=nope", "adopt: conf/ does not compose: In 'config': Could not find 'model/nope'"),
        ("train.nope=1", "adopt: conf/ does not compose: train.nope is not a key of the configuration; train has "),
        ("+train.nope=1", "adopt: train.nope is not a key of the configuration; train has method, "),
        ("train.lr=fast", "adopt: train.lr is 'fast'; it must be a finite number"),
        ("train.lr=1e-3,2e-3", "adopt: train.lr=1e-3,2e-3 names several values; adopt one of them"),
        ("model=starter-s,starter-m", "adopt: model=starter-s,starter-m names several values; adopt one of them"),
        ("hydra.run.dir=out", "adopt: hydra.run.dir=out is a setting of Hydra's; change it in conf/config.yaml"),
        ("experiment=adopted", "adopt: experiment=adopted stands for what is adopted; name another experiment"),
        ("experiment=nope", "adopt: conf/ does not compose: In 'config': Could not find 'experiment/nope'"),
        ("train=qlora", "adopt: train.method is qlora and model.load_in_4bit is False"),
        ("train.lr", "adopt: cannot read the overrides: Error parsing override 'train.lr'"),
        ("~train.lr", "adopt: "),
        ("evaluate.judge.url=https://me:secret@host/v1", "adopt: evaluate.judge.url is no address of an API"),
        ("evaluate.judge.key=sk-secret", "adopt: evaluate.judge.key is no name of an environment variable"),
        ("recipe=null", "adopt: conf/ does not compose: Config group override must be a string or a list"),
    ],
)
def test_what_cannot_be_adopted_ends_in_one_line_and_changes_nothing(project: Path, override: str, said: str) -> None:
    assert adopt(project, "model=starter-s").returncode == 0
    before = files(project)
    done = adopt(project, override)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert "secret" not in done.stdout + line
    assert files(project) == before
    assert [path.name for path in (project / "conf").glob(".*")] == []


def test_a_git_without_a_name_to_sign_with_is_said(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR_", "GIT_COMMITTER_"))]:
        monkeypatch.delenv(name)
    line = "git has no name to sign with, without which `dvc exp run` fails from now on: git config user.name NAME"
    assert line in adopt(project, "train.lr=2e-3").stdout
    for key in ("user.name", "user.email"):
        subprocess.run(["git", "config", key, "tester"], cwd=project, check=True)
    assert line not in adopt(project, "train.lr=3e-3").stdout
