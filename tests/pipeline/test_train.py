"""Training on starter-s in a few steps: what is learnt from, what is written, what is gone on from, what is refused."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from pipeline import train
from pipeline.compose import compose
from pipeline.config import Config, load
from pipeline.data.settings import DataSettings
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.prepare import prepare
from pipeline.training.chat import load_tokenizer

REPO = Path(__file__).parents[2]
STARTER = REPO / "starter/models/starter-s"
SETTINGS = [
    "model=starter-s",
    f"model.path={STARTER}",
    "tracking=none",
    "runtime.device=cpu",
    "train.lora.r=4",
    "train.batch_size=4",
    "train.max_steps=6",
    "train.save_steps=3",
    "train.eval_steps=6",
    "train.logging_steps=2",
    "train.max_length=128",
]
ADAPTER = Path("models/adapter")

Train = Callable[..., str]


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", [*SETTINGS, *overrides]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a small prepared data set; training takes its inputs from there."""
    folder = tmp_path_factory.mktemp("project")
    lines = (REPO / "starter/chats.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "chats.jsonl").write_text("".join(lines[:120]), encoding="utf-8")
    prepare(DataSettings("starter", "files", ["chats.jsonl"], validation=8, test=8), folder, folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    torch.set_num_threads(threads)


@pytest.fixture
def trained(project: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Trains as the stage does, into a folder below the project; returns what was printed."""

    def run(out: str, *overrides: str) -> str:
        train.main.__wrapped__.__wrapped__(config(*overrides), project / out)  # below Hydra and its error line
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    """An uninterrupted training."""
    train.main.__wrapped__.__wrapped__(config(), project / "whole")
    return project / "whole"


def command(*arguments: str) -> list[str]:
    # Hydra's `-m` comes before all overrides.
    flags = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    return [sys.executable, "-m", "pipeline.train", *flags, *SETTINGS, *overrides]


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"} | changes


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / ADAPTER / "adapter_model.safetensors")


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a stage ended with."""
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("train: ")]
    assert done.stderr.splitlines()[-1] == line
    return line


def test_the_adapter_is_in_pefts_layout_with_where_it_comes_from(whole: Path) -> None:
    folder = whole / ADAPTER
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 4, 32)
    assert set(settings["target_modules"]) == set(config().train.lora.target_modules)
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "training_args.bin").exists()  # a pickle
    assert all(tensor.dtype == torch.float32 for tensor in weights(whole).values())
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights(whole).items())
    lineage = json.loads((folder / "lineage.json").read_text())
    report = json.loads((whole / "reports/train.json").read_text())
    assert lineage["fingerprint"] == report["fingerprint"]
    assert lineage["base"]["path"] == str(STARTER)
    assert lineage["mlflow_run"] is None
    assert [path.name for path in (whole / "models").glob(".*")] == []


def test_the_reports_tell_cost_and_loss(whole: Path) -> None:
    report = json.loads((whole / "reports/train.json").read_text())
    assert (report["steps"], report["engine"]) == (6, "trl")
    assert report["trainable_parameters"] == sum(tensor.numel() for tensor in weights(whole).values())
    assert report["tokens"] > 0 < report["tokens_per_second"]
    assert report["samples_per_second"] > 0 < report["seconds"]
    assert 0 < report["validation_loss"] < 20
    with (whole / "reports/loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["split"] == "train"] == ["2", "4", "6"]
    (last,) = [row for row in rows if row["split"] == "validation"]
    assert (last["step"], float(last["loss"])) == ("6", report["validation_loss"])


def test_an_interrupted_training_goes_on_to_the_same_adapter_to_the_bit(
    project: Path, whole: Path, trained: Train
) -> None:
    apart = "runtime.checkpoint_root=.interrupted"
    first = trained("interrupted", apart, "train.stop_step=3")
    assert "resuming" not in first
    assert json.loads((project / "interrupted/reports/train.json").read_text())["steps"] == 3
    second = trained("interrupted", apart, "train.stop_step=null")
    assert re.search(r"resuming from .*/\.interrupted/\w+/checkpoint-3\n", second.replace("\n/", "/"))
    assert json.loads((project / "interrupted/reports/train.json").read_text())["steps"] == 6
    expected, got = weights(whole), weights(project / "interrupted")
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_broken_last_checkpoint_is_set_aside_and_the_one_before_it_used(
    project: Path, whole: Path, trained: Train
) -> None:
    (folder,) = (project / ".interrupted").iterdir()
    (folder / "checkpoint-6/complete.json").unlink()
    (folder / "checkpoint-6/optimizer.pt").write_bytes(b"half")
    said = trained("again", "runtime.checkpoint_root=.interrupted")
    assert "is incomplete; set aside as incomplete-checkpoint-6" in said
    assert "checkpoint-3" in said
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(project / "again").items())


def test_a_changed_learning_rate_does_not_resume(project: Path, whole: Path, trained: Train) -> None:
    before = {path.name for path in (project / ".checkpoints").iterdir()}
    assert "resuming" not in trained("changed", "train.lr=1e-4")
    assert len({path.name for path in (project / ".checkpoints").iterdir()} - before) == 1
    assert sha256(project / "changed" / ADAPTER / "adapter_model.safetensors") != sha256(
        whole / ADAPTER / "adapter_model.safetensors"
    )


def test_a_finished_training_is_not_repeated(project: Path, whole: Path, trained: Train) -> None:
    assert "resuming" in trained("repeated")
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(project / "repeated").items())


def test_labels_stand_on_the_assistants_tokens_alone(project: Path) -> None:
    tokenizer = load_tokenizer(config().model)
    rows = train.supervised("train", tokenizer, 512)
    assert len(rows) == 104
    for row in rows:
        learnt = [(i, label) for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        assert learnt
        assert all(i == label for i, label in learnt)
        text = str(tokenizer.decode(row["input_ids"]))
        said = re.findall(r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)", text, re.DOTALL)
        assert str(tokenizer.decode([i for i, _ in learnt])) == "".join(said)


def test_a_row_longer_than_max_length_is_cut_and_one_with_nothing_left_to_learn_is_left_out(project: Path) -> None:
    tokenizer = load_tokenizer(config().model)
    whole, cut = (train.supervised("train", tokenizer, length) for length in (512, 24))
    assert max(map(len, whole["input_ids"])) > 24 == max(map(len, cut["input_ids"]))
    assert 0 < len(cut) < len(whole)
    assert all(any(label != -100 for label in labels) for labels in cut["labels"])
    with pytest.raises(UserError, match=r"^no train row has an assistant token within train\.max_length 8; raise it$"):
        train.supervised("train", tokenizer, 8)


def test_a_model_folder_without_weights_is_refused_in_one_line(project: Path, trained: Train) -> None:
    folder = project / "hollow"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((STARTER / name).read_bytes())
    with pytest.raises(UserError, match=r"^model .*hollow cannot be loaded \(.*\); its folder needs") as raised:
        trained("refused", f"model.path={folder}")
    assert "\n" not in str(raised.value)
    assert not (project / "refused").exists()


def test_cut_weights_are_refused_in_one_line(project: Path, trained: Train) -> None:
    folder = project / "cut"
    folder.mkdir()
    for path in STARTER.iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[: 1_000_000 if path.suffix == ".safetensors" else None])
    with pytest.raises(UserError, match=r"^model .*cut cannot be loaded \(.*\); its folder needs") as raised:
        trained("refused", f"model.path={folder}")
    assert "\n" not in str(raised.value)
    assert not (project / "refused").exists()


def test_projections_that_the_model_lacks_are_refused_in_one_line(project: Path, trained: Train) -> None:
    with pytest.raises(UserError, match=r"^train\.lora\.target_modules") as raised:
        trained("refused", "train.lora.target_modules=[nowhere_proj]")
    assert "\n" not in str(raised.value)


def test_weights_that_are_not_finite_are_not_written(project: Path, trained: Train) -> None:
    with pytest.raises(UserError, match=r"not finite; lower train\.lr$"):
        trained("refused", "train.lr=1e30", "train.warmup_ratio=0", "train.max_grad_norm=1e30")
    assert not (project / "refused" / ADAPTER).exists()


def test_a_gpu_that_is_not_there_is_refused_in_one_line(project: Path, trained: Train) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"^runtime\.device is cuda but PyTorch sees no GPU"):
        trained("refused", "runtime.device=cuda")


def test_without_prepared_data_the_command_ends_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(command(), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert refused(done) == "train: reports/prepare.json is missing; run `dvc repro prepare` first"
    assert not (tmp_path / "models").exists()


def test_a_hub_out_of_reach_ends_in_one_line(project: Path, tmp_path: Path) -> None:
    changes = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    hub = {key: value for key, value in environment(**changes).items() if key != "HF_HUB_OFFLINE"}
    asked = command("model.path=someone/some-model")
    line = refused(subprocess.run(asked, cwd=project, env=hub, capture_output=True, text=True))
    assert line.startswith("train: model someone/some-model is no folder here and not to be had from the hub (")
    assert "take model=starter-m" in line


def test_a_sweep_trains_each_job_in_its_folder_under_one_mlflow_parent_and_ranks_them(
    project: Path, tmp_path: Path
) -> None:
    grid = ["-m", "train.lr=1e-3,2e-3", "tracking=mlflow", "train.max_steps=2", f"hydra.sweep.dir={tmp_path}/sweep"]
    root = {"DVC_ROOT": str(tmp_path), "COLUMNS": "500"}
    done = subprocess.run(command(*grid), cwd=project, env=environment(**root), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    jobs: dict[str, Any] = {}
    for job in ("0", "1"):
        folder = tmp_path / "sweep" / job
        assert (folder / ADAPTER / "adapter_model.safetensors").is_file()
        assert (folder / "reports/loss.csv").is_file()
        jobs[job] = json.loads((folder / "reports/train.json").read_text())["validation_loss"]
    assert not (project / "models").exists()

    table = done.stdout[done.stdout.rindex("sweep") :]
    ranked = re.findall(r"│ (\d) +│ (\d) +│ .*?train\.lr=(\S+)", table)
    assert [rank for rank, _, _ in ranked] == ["1", "2"]
    assert [job for _, job, _ in ranked] == sorted(jobs, key=lambda job: jobs[job])
    assert {float(rate) for _, _, rate in ranked} == {1e-3, 2e-3}

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("tunesmith")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs) == 3
    assert {child.data.params["train.lr"] for child in children} == {"0.001", "0.002"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.tags["best_job"] == ranked[0][1]
