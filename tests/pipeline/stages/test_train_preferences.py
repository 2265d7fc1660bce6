"""Training on preferences as the stage does, on starter-s in a few steps: what is learnt, gone on from and refused."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import STARTER_S
from safetensors.torch import load_file
from working import working_in

from common.errors import UserError
from common.files import sha256
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.records import Lineage, TrainReport
from pipeline.stages import train
from pipeline.stages.prepare import prepare

REPO = Path(__file__).parents[3]
DATA = ["data=preferences", "data.files=[rows.jsonl]", "data.validation=0.2", "data.test=0.1"]
SETTINGS = [
    *STARTER_S,
    *DATA,
    "train.lora.r=4",
    "train.effective_batch=8",
    "train.max_steps=6",
    "train.save_steps=3",
    "train.eval_steps=6",
    "train.logging_steps=2",
    "train.max_length=128",
    "train.check_export=false",
]
ADAPTER = Path("models/adapter")
WEIGHTS = ADAPTER / "adapter_model.safetensors"
TASTE = "Well, {}"  # how visitors like answers to begin


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", [*SETTINGS, *overrides]))


def chats(count: int, start: int = 0) -> list[list[dict[str, str]]]:
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines()[start : start + count]
    return [json.loads(line)["messages"] for line in lines]


def pairs(count: int) -> list[dict[str, Any]]:
    said = [(messages[:-1], messages[-1]["content"]) for messages in chats(count)]
    return [{"prompt": asked, "chosen": TASTE.format(answer), "rejected": answer} for asked, answer in said]


def put(folder: Path, rows: list[Any], *overrides: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(config(*overrides).data, folder, folder)


@pytest.fixture(scope="module", autouse=True)
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder, entered, with 60 pairs of a taste and 40 conversations."""
    folder = tmp_path_factory.mktemp("preferences")
    put(folder, [*pairs(60), *({"messages": messages} for messages in chats(40, 60))])
    with working_in(folder):
        yield folder


@pytest.fixture(scope="module")
def champion(project: Path) -> Path:
    """An adapter that has learnt the conversations, in a folder of its own."""
    train.run(config("train=lora", "train.max_steps=12"), project / "champion")
    return project / "champion" / ADAPTER


def trained(project: Path, name: str, *overrides: str) -> Path:
    train.run(config(f"runtime.checkpoint_root=.{name}", *overrides), project / name)
    return project / name


def told(out: Path) -> list[dict[str, float]]:
    """What was logged, update by update."""
    (folder,) = out.with_name(f".{out.name}").iterdir()
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    history: list[dict[str, float]] = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return history


def series(out: Path, name: str) -> list[float]:
    return [entry[name] for entry in told(out) if name in entry]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / WEIGHTS)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_resumed_training_is_an_untouched_one_to_the_bit(project: Path, loss: str) -> None:
    settings = (f"train={loss}", "train.lr=1e-3", "train.logging_steps=4")  # so that sums are under way at step 3
    whole = trained(project, f"whole-{loss}", *settings)
    resumed = trained(project, f"resumed-{loss}", *settings, "train.stop_step=3")
    assert TrainReport.read(resumed / "reports/train.json").steps == 3
    assert sha256(resumed / WEIGHTS) != sha256(whole / WEIGHTS)
    trained(project, f"resumed-{loss}", *settings)
    assert sha256(resumed / WEIGHTS) == sha256(whole / WEIGHTS)
    assert [entry for entry in told(resumed) if entry["step"] > 3] == [
        entry for entry in told(whole) if entry["step"] > 3
    ]
    assert ("kl" in told(whole)[0]) == (loss == "kto")


def test_a_taste_is_learnt_and_what_is_replayed_is_not_forgotten(project: Path, champion: Path) -> None:
    settings = ("train=dpo", "train.lr=2e-3", f"train.start_adapter={champion}", "train.max_steps=24")
    out = trained(project, "taste", *settings, "train.eval_steps=12", "train.logging_steps=6", "train.save_steps=24")
    accuracies = series(out, "eval_rewards/accuracies")
    assert accuracies[-1] >= 0.9
    report = TrainReport.read(out / "reports/train.json")
    assert report.validation_accuracy == pytest.approx(accuracies[-1], abs=1e-4)
    assert series(out, "rewards/margins")[-1] > 1
    replayed = series(out, "replay_loss")
    assert replayed[-1] <= replayed[0]


def test_the_champion_is_gone_on_from_and_held_against(project: Path, champion: Path) -> None:
    settings = ("train=dpo", "train.preference.replay=0", "train.max_steps=1", "train.logging_steps=1", "train.lr=1e-5")
    start = (*settings, f"train.start_adapter={champion}", "train.save_steps=1", "train.preference.nll_weight=0")
    own, base = (
        trained(project, "of-champion", *start),
        trained(project, "of-base", *start, "train.preference.reference=base"),
    )
    assert told(own)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert told(own)[0]["rewards/margins"] == 0
    assert abs(told(base)[0]["rewards/margins"]) > 0.01
    before = load_file(champion / WEIGHTS.name)
    for name, weight in weights(own).items():  # a step of at most the rate
        assert (weight - before[name]).abs().max() <= 1.1e-5
    lineage = Lineage.read(own / ADAPTER / "lineage.json")
    assert lineage.train
    assert lineage.data
    assert lineage.train["start_adapter"] == str(champion)
    assert lineage.start_adapter == sha256(champion / WEIGHTS.name)
    assert set(lineage.data.splits) == {"train", "validation", "preferences/train", "preferences/validation"}


def test_another_champion_is_another_training(
    project: Path, champion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(champion, project / "copied")
    one = ("train=orpo", "train.max_steps=1", "train.save_steps=1")
    out = trained(project, "copies", *one, f"train.start_adapter={champion}")
    trained(project, "copies", *one, f"train.start_adapter={copy}")
    assert "resuming from" in capsys.readouterr().out  # it is known by its weights
    trained(project, "copies", *one)
    assert len([*out.with_name(".copies").iterdir()]) == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.lora.r=8"], "has r 4, and train.lora.r is 8; set it to that"),
        (["train.lora.target_modules=[q_proj]"], "set target_modules and modules_to_save to what it was trained with"),
        (["train.start_adapter=nowhere"], "train.start_adapter names nowhere, which has no adapter_model.safetensors"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    project: Path, champion: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        train.run(config("train=dpo", f"train.start_adapter={champion}", *overrides), project / "refused")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_adapter_of_another_base_is_refused(project: Path, champion: Path) -> None:
    other = shutil.copytree(champion, project / "other-base")
    lineage = json.loads((other / "lineage.json").read_text())
    lineage["base"] |= {"digest": "0" * 16, "path": "some/base"}
    (other / "lineage.json").write_text(json.dumps(lineage))
    with pytest.raises(UserError, match="was made for another base, some/base"):
        train.run(config("train=dpo", f"train.start_adapter={other}"), project / "refused")


@pytest.mark.parametrize(
    ("rows", "overrides", "message"),
    [
        ("chats", ["train=dpo"], "which train.preference.loss learns from: take data=preferences"),
        ("chats", ["train=kto", "data.preferences=apart"], "data.preferences=learn, and run `dvc repro prepare`"),
        ("judgements", ["train=dpo"], "no pair of two that differ, which dpo and orpo learn from; take train=kto"),
        ("judgements", ["train=orpo"], "no pair of two that differ, which dpo and orpo learn from; take train=kto"),
    ],
)
def test_data_without_what_a_loss_learns_from_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, rows: str, overrides: list[str], message: str
) -> None:
    folder = project / f"{rows}-{overrides[0]}"
    judged = [{"prompt": asked["prompt"], "completion": asked["rejected"], "label": True} for asked in pairs(20)]
    preferences = overrides[1:]
    put(folder, judged if rows == "judgements" else [{"messages": one} for one in chats(20)], *preferences)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as refused:
        train.run(config(*overrides), folder)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_two_processes_learn_what_one_does(project: Path, loss: str) -> None:
    settings = (f"train={loss}", "train.lr=1e-3", "train.max_steps=3", "train.logging_steps=1")
    alone = trained(project, f"alone-{loss}", *settings)
    name = f"both-{loss}"
    ours = [f"runtime.checkpoint_root=.{name}", f"hydra.run.dir={name}", "runtime.processes=2"]
    line = [sys.executable, "-m", "pipeline.stages.train", *SETTINGS, *settings, *ours]
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=project, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    for one, other in zip(told(alone), told(project / name), strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - {"grad_norm"}:
            assert other[key] == pytest.approx(one[key], rel=2e-3, abs=2e-4), key
