"""What runs are called: by what differs from the presets in conf/, and by nothing else."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.adopted import Adopted, write
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.tracking.naming import differing, in_words, run_name

REPO = Path(__file__).parents[3]
Name = Callable[..., str]


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Name:
    """The name of a run with these overrides, in a folder with a conf/ of its own."""
    shutil.copytree(REPO / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: run_name(load(compose(Path("conf"), list(overrides))))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "starter-m on starter"),
        (["model=starter-s"], "starter-s on starter"),
        (["model=starter-s", "train.lr=1e-3", "train.lora.r=8"], "starter-s on starter · r 8, lr 0.001"),
        (["model=llama-3.2-1b", "data=finetome"], "llama-3.2-1b on finetome"),
        (["experiment=r3"], "llama-3.2-1b on finetome · r3"),
        (["experiment=r3", "model=llama-3.2-3b"], "llama-3.2-3b on finetome · r3"),
        (["experiment=r3", "train.lr=5e-6"], "llama-3.2-1b on finetome · r3 · lr 5e-06"),
        (["train.stop_step=5", "train.save_steps=7", "train.compile=false"], "starter-m on starter"),
        (["data.seed=1", "train.seed=2"], "starter-m on starter · data.seed 1, train.seed 2"),
        (["train.lora.target_modules=[q_proj,v_proj]"], "starter-m on starter · target_modules [q_proj, v_proj]"),
        (["train.lora.dora=true", "train.max_steps=null"], "starter-m on starter · dora true, max_steps null"),
        (["model.name=mine"], "mine on starter"),
        (
            [f"train.{key}" for key in ("lr=1", "scheduler=linear", "weight_decay=0", "seed=1", "epochs=2", "lora.r=9")]
            + ["train.lora.alpha=3"],
            "starter-m on starter · r 9, alpha 3, lr 1, scheduler linear, weight_decay 0, +2",
        ),
    ],
)
def test_a_run_is_named_by_what_differs_from_its_presets(name: Name, overrides: list[str], expected: str) -> None:
    assert name(*overrides) == expected


def test_a_long_value_is_cut(name: Name) -> None:
    modules = ",".join(f"{letter}_projection" for letter in "abcdefg")
    expected = "target_modules [a_projection, b_projection, c_projectio…"
    assert name(f"train.lora.target_modules=[{modules}]") == f"starter-m on starter · {expected}"


def test_what_is_adopted_is_told_while_it_is_in_force(name: Name) -> None:
    write(Path("conf"), Adopted({"model": "starter-s"}, {"train.lr": 1e-3}))
    assert name() == "starter-s on starter · lr 0.001"
    assert name("train.lr=2e-3") == "starter-s on starter · lr 0.002"
    assert name("model=starter-m") == "starter-m on starter · lr 0.001"


def test_without_conf_or_with_a_broken_one_the_rest_of_the_name_is_told(name: Name, tmp_path: Path) -> None:
    config = load(compose(REPO / "conf", ["train.lr=1e-3"]))
    assert run_name(config) == "starter-m on starter · lr 0.001"
    (tmp_path / "conf/config.yaml").write_text("defaults: [no, such, thing]\n")
    assert run_name(config) == "starter-m on starter"
    shutil.rmtree(tmp_path / "conf")
    assert run_name(config) == "starter-m on starter"


def test_a_preset_that_changes_meanwhile_is_told_from_as_it_is_now(name: Name) -> None:
    assert name("train.lr=0.5") == "starter-m on starter · lr 0.5"
    recipe = Path("conf/recipe/starter-m.yaml")
    recipe.write_text(re.sub(r"(?m)^(\s*lr:).*$", r"\1 0.5", recipe.read_text()))
    assert name() == "starter-m on starter"


def test_settings_of_other_stages_name_no_run(name: Name) -> None:
    config = load(compose(Path("conf"), ["export.adapter=true", "evaluate.batch_size=1", "tracking.experiment=x"]))
    assert differing(config) == {}
    assert in_words({}) == ""
