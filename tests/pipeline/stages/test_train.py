"""Training on starter-s in a few steps: what is learnt from, what is written, what is gone on from, what is refused."""

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import STARTER_S
from mlflow import MlflowClient
from safetensors.torch import load_file

from common.errors import Interrupted, UserError
from common.files import sha256
from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.core.records import Lineage, TrainReport
from pipeline.data.prepared import TO_PREPARE
from pipeline.gguf import preflight
from pipeline.stages import train
from pipeline.tracking import run as tracking
from pipeline.training import micro_batch
from pipeline.training.interruption import EvaluationStopped, Interruption, StopWhenAsked
from pipeline.training.trainer import Trainer

REPO = Path(__file__).parents[3]
STARTER = REPO / "starter/models/starter-s"
SETTINGS = [
    *STARTER_S,
    "train.lora.r=4",
    "train.batch_size=4",
    "train.effective_batch=16",
    "train.max_steps=6",
    "train.save_steps=3",
    "train.eval_steps=6",
    "train.logging_steps=2",
    "train.max_length=128",
    "train.check_export=false",
]
ADAPTER = Path("models/adapter")
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

Train = Callable[..., str]


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", [*SETTINGS, *overrides]))


@pytest.fixture
def trained(project: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """Trains as the stage does, into a folder below the project; returns what was printed."""

    def run(out: str, *overrides: str) -> str:
        train.run(config(*overrides), project / out)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    """An uninterrupted training."""
    train.run(config(), project / "whole")
    return project / "whole"


def command(*arguments: str) -> list[str]:
    # Hydra's `-m` comes before all overrides.
    flags = [argument for argument in arguments if argument.startswith("-")]
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    return [sys.executable, "-m", "pipeline.stages.train", *flags, *SETTINGS, *overrides]


def environment(**changes: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"} | changes


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / ADAPTER / "adapter_model.safetensors")


def same(left: Path, right: Path) -> bool:
    """Whether two trainings ended with the same adapter, to the bit."""
    return sha256(left / ADAPTER / "adapter_model.safetensors") == sha256(right / ADAPTER / "adapter_model.safetensors")


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "reports/train.json").read_text())


def losses(out: Path) -> str:
    return (out / "reports/loss.csv").read_text()


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
    assert set(settings["target_modules"]) == PROJECTIONS
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "training_args.bin").exists()  # a pickle
    assert all(tensor.dtype == torch.float32 for tensor in weights(whole).values())
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights(whole).items())
    lineage = Lineage.read(folder / "lineage.json")
    assert lineage.fingerprint == TrainReport.read(whole / "reports/train.json").fingerprint
    assert lineage.base.path == str(STARTER)
    assert lineage.mlflow_run is None
    assert [path.name for path in (whole / "models").glob(".*")] == []


def test_the_reports_tell_cost_and_loss(whole: Path) -> None:
    report = json.loads((whole / "reports/train.json").read_text())
    assert set(report) == {*TrainReport.model_fields} - {"validation_accuracy"}  # which a sweep may ask for
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
    assert same(whole, project / "interrupted")


@pytest.mark.parametrize(
    "options",
    [
        ["train.lora.rslora=true", "train.neftune_alpha=5", "train.packing=true", "train.min_lr_ratio=0.1"],
        ["train.lora.dora=true", "train.scheduler=warmup_stable_decay", "train.decay_ratio=0.5"],
        ["train.lora.modules_to_save=[embed_tokens, norm]", "train.scheduler=linear", "train.min_lr_ratio=0.5"],
    ],
    ids=["rslora and neftune", "dora and decay", "whole embeddings"],
)
def test_every_option_of_the_adapter_goes_on_to_the_bit(
    project: Path, whole: Path, trained: Train, options: list[str], request: pytest.FixtureRequest
) -> None:
    name = re.sub(r"\W", "", request.node.callspec.id)
    trained(f"{name}-once", *options, f"runtime.checkpoint_root=.{name}-once")
    trained(f"{name}-parts", *options, f"runtime.checkpoint_root=.{name}", "train.stop_step=3")
    assert "resuming from" in trained(f"{name}-parts", *options, f"runtime.checkpoint_root=.{name}")
    assert same(project / f"{name}-once", project / f"{name}-parts")
    assert not same(project / f"{name}-once", whole)
    assert losses(project / f"{name}-once") == losses(project / f"{name}-parts")


def test_the_rate_stays_and_then_falls_to_its_minimum(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    step = Trainer.training_step

    def noted(self: Trainer, *args: Any) -> Any:
        shares.append(self.optimizer.param_groups[0]["lr"] / self.args.learning_rate)
        return step(self, *args)

    monkeypatch.setattr(Trainer, "training_step", noted)
    settings = ["train.scheduler=warmup_stable_decay", "train.decay_ratio=0.5", "train.min_lr_ratio=0.25"]
    trained("rates", *settings, "train.warmup_ratio=0.16", "runtime.checkpoint_root=.rates")
    assert shares == pytest.approx([0.25, 1, 1, 1, 0.75, 0.5])  # warms up from its minimum, too


@pytest.mark.parametrize("optimizer", ["adafactor", "adagrad", "rmsprop", "sgd"])
def test_the_optimizers_that_need_no_package_learn(project: Path, trained: Train, optimizer: str) -> None:
    trained(
        "optimizer",
        f"train.optimizer={optimizer}",
        f"runtime.checkpoint_root=.{optimizer}",
        "train.max_steps=1",
        "train.warmup_ratio=0",
    )
    assert any("lora_B" in name and tensor.abs().sum() > 0 for name, tensor in weights(project / "optimizer").items())


def test_a_damaged_last_checkpoint_is_set_aside_and_the_one_before_it_used(
    project: Path, whole: Path, trained: Train
) -> None:
    (folder,) = (project / ".interrupted").iterdir()
    (folder / "checkpoint-6/optimizer.pt").write_bytes(b"half")
    said = trained("again", "runtime.checkpoint_root=.interrupted")
    assert "has 4 bytes of optimizer.pt instead of" in said
    assert "resuming from" in said
    assert "checkpoint-3" in said
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(project / "again").items())


def test_a_library_upgrade_since_the_checkpoint_is_named(project: Path, whole: Path, trained: Train) -> None:
    mark = next(project.glob(f".checkpoints/{report(whole)['fingerprint']}/checkpoint-6/complete.json"))
    before = mark.read_text()
    mark.write_text(before.replace(f'"trl": "{version("trl")}"', '"trl": "0.1"'))
    said = trained("upgraded")
    mark.write_text(before)
    warning = f"warning: checkpoint-6 was made with another trl 0.1 -> {version('trl')}; what follows may differ"
    assert warning in said
    assert "another" not in trained("upgraded")


def test_a_changed_chat_template_does_not_resume(project: Path, trained: Train) -> None:
    template = project / "mine.jinja"
    original = (STARTER / "chat_template.jinja").read_text()
    settings = [f"model.chat_template={template}", "runtime.checkpoint_root=.template", "train.max_steps=2"]
    template.write_text(original)
    trained("template", *settings)
    template.write_text(original + "{# another #}")
    said = trained("template", *settings)
    assert "resuming" not in said
    assert "model.digest: " in said


def test_data_that_its_report_does_not_describe_are_refused(project: Path, trained: Train) -> None:
    path = project / "data/prepared/train.parquet"
    before = path.read_bytes()
    path.write_bytes((project / "data/prepared/test.parquet").read_bytes())
    with pytest.raises(
        UserError, match=r"^data/prepared/train\.parquet is not what reports/prepare\.json describes; run"
    ):
        trained("refused")
    path.write_bytes(before)


def test_how_often_is_saved_may_change_between_the_parts(project: Path, whole: Path, trained: Train) -> None:
    apart = "runtime.checkpoint_root=.often"
    trained("often", apart, "train.stop_step=2", "train.save_steps=100")
    trained("often", apart, "train.save_steps=1", "train.save_total_limit=9", "train.eval_steps=2")
    (folder,) = (project / ".often").iterdir()
    assert {path.name for path in folder.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in range(2, 7)}
    curve = csv.DictReader(losses(project / "often").splitlines())
    assert [row["step"] for row in curve if row["split"] == "validation"] == ["2", "4", "6"]
    assert same(whole, project / "often")


def test_a_time_limit_that_passes_during_an_evaluation_does_not_wait_for_its_end(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up_at_the_first_batch(self: Interruption, reserve: float) -> bool:
        measured = sys._getframe(1).f_code.co_name == "on_prediction_step"
        self.reason = "the time limit" if measured else None
        return measured

    settings = ["train.eval_steps=2", "runtime.checkpoint_root=.long"]
    with monkeypatch.context() as patch:
        patch.setattr(Interruption, "time_is_up", up_at_the_first_batch)
        with pytest.raises(Interrupted, match=r"^the time limit: resumable at step 2; "):
            trained("long", *settings)
    trained("long", *settings)
    curve = csv.DictReader(losses(project / "long").splitlines())
    assert [row["step"] for row in curve if row["split"] == "validation"] == ["2", "4", "6"]


def test_a_request_in_the_last_evaluation_leaves_a_training_that_only_evaluates(
    project: Path, whole: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(self: StopWhenAsked, *args: Any, **_: Any) -> None:
        self.interruption.reason = "SIGTERM"
        raise EvaluationStopped

    settings = ["train.eval_steps=100", "runtime.checkpoint_root=.last"]
    with monkeypatch.context() as patch:
        patch.setattr(StopWhenAsked, "on_prediction_step", asked)
        with pytest.raises(Interrupted, match=r"^SIGTERM: resumable at step 6; "):
            trained("last", *settings)
    trained("last", *settings)
    assert same(whole, project / "last")
    assert report(project / "last")["validation_loss"] == report(whole)["validation_loss"]


def test_a_changed_learning_rate_does_not_resume_and_says_so(project: Path, whole: Path, trained: Train) -> None:
    before = {path.name for path in (project / ".checkpoints").iterdir()}
    said = trained("changed", "train.lr=1e-4")
    assert "resuming" not in said
    assert "changed since the training that ran last:\n  train.lr: 0.005 -> 0.0001\n" in said
    assert len({path.name for path in (project / ".checkpoints").iterdir()} - before) == 1
    assert sha256(project / "changed" / ADAPTER / "adapter_model.safetensors") != sha256(
        whole / ADAPTER / "adapter_model.safetensors"
    )


@pytest.mark.parametrize("end", [6, 4])
def test_a_finished_training_is_not_trained_further(project: Path, trained: Train, end: int) -> None:
    # Under a constant rate one update more would show.
    settings = ["train.scheduler=constant", "runtime.checkpoint_root=.finished", f"train.stop_step={end}"]
    trained("finished", *settings)
    assert "resuming" in trained("repeated", *settings)
    assert same(project / "finished", project / "repeated")
    first, second = report(project / "finished"), report(project / "repeated")
    assert first["steps"] == second["steps"] == end  # in the second case also with a checkpoint of step 6 beside
    assert (first["tokens"], first["validation_loss"]) == (second["tokens"], second["validation_loss"])


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


def test_a_base_that_could_not_be_exported_is_refused_before_anything_is_trained(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))  # the trial is a process of its own
    base = shutil.copytree(STARTER, project / "endless")
    settings = json.loads((base / "generation_config.json").read_text())
    settings["eos_token_id"] += [6, 7, 8]  # more than a GGUF can tell llama.cpp of
    (base / "generation_config.json").write_text(json.dumps(settings))
    before = set(project.glob(".checkpoints/*"))
    with pytest.raises(UserError, match=r"a file can name 2 of them; .*; nothing was trained yet") as raised:
        trained("endless-out", f"model.path={base}", "train.check_export=true")
    assert "\n" not in str(raised.value)
    assert set(project.glob(".checkpoints/*")) == before
    assert not (project / "endless-out").exists()
    trained("endless-out", f"model.path={base}", "train.max_steps=1")
    assert (project / "endless-out" / ADAPTER).is_dir()


def test_the_trial_of_the_export_changes_nothing_that_is_learnt(
    project: Path, whole: Path, trained: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setattr(preflight, "cache_root", lambda: tmp_path)
    said = trained("tried", "train.check_export=true", f"runtime.checkpoint_root={tmp_path / 'checkpoints'}")
    assert "starter-s can be exported, as a trial with tiny weights shows" in said
    assert same(project / "tried", whole)


def test_projections_that_the_model_lacks_are_refused_in_one_line(project: Path, trained: Train) -> None:
    with pytest.raises(UserError, match=r"^train\.lora\.target_modules") as raised:
        trained("refused", "train.lora.target_modules=[nowhere_proj]")
    assert "\n" not in str(raised.value)


def test_a_loss_that_is_no_number_ends_training_with_its_step_and_the_last_good_checkpoint(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Trainer.compute_loss

    def broken(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        loss = honest(self, *args, **kwargs)
        return loss * math.nan if self.state.global_step == 4 and self.model.training else loss

    monkeypatch.setattr(Trainer, "compute_loss", broken)
    with pytest.raises(UserError) as raised:
        trained("refused", "runtime.checkpoint_root=.broken")
    assert str(raised.value).startswith("training diverged at step 5: loss nan, gradient norm nan; the last good")
    assert "checkpoint is that of step 3; lower train.lr" in str(raised.value)
    assert not (project / "refused" / ADAPTER).exists()


def test_weights_that_are_not_finite_are_neither_saved_nor_written(project: Path, trained: Train) -> None:
    steep = ["train.weight_decay=1e30", "train.warmup_ratio=0", "train.max_grad_norm=1e30", "train.save_steps=1"]
    with pytest.raises(UserError, match=r"^training diverged at step \d"):
        trained("refused", *steep, "runtime.checkpoint_root=.steep")
    assert not (project / "refused" / ADAPTER).exists()
    for path in project.glob(".steep/*/checkpoint-*/adapter_model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_a_request_while_the_validation_loss_is_measured_is_heeded_at_once_and_the_loss_made_up_for(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["train.eval_steps=2", "train.eval_batch_size=2", "train.lora.dropout=0.1"]
    trained("undisturbed", *settings, "runtime.checkpoint_root=.undisturbed")

    def asked(self: StopWhenAsked, *args: Any, **_: Any) -> None:
        if args[1].global_step == 4:
            self.interruption.reason = "SIGTERM"
            raise EvaluationStopped

    with monkeypatch.context() as patch:
        patch.setattr(StopWhenAsked, "on_prediction_step", asked)
        with pytest.raises(Interrupted, match=r"^SIGTERM: resumable at step 4; the same command goes on from there$"):
            trained("asked", *settings, "runtime.checkpoint_root=.asked")
    assert not (project / "asked" / ADAPTER).exists()
    assert "checkpoint-4\n" in trained("asked", *settings, "runtime.checkpoint_root=.asked").replace("\n/", "/")
    assert same(project / "undisturbed", project / "asked")
    assert losses(project / "undisturbed") == losses(project / "asked")
    assert report(project / "asked")["sessions"] == 2


def test_a_signal_ends_training_with_a_checkpoint_and_the_next_start_goes_on(project: Path, whole: Path) -> None:
    arguments = [
        *command("runtime.checkpoint_root=.signal", "train.logging_steps=1"),
        f"hydra.run.dir={project}/signal",
    ]
    streams: dict[str, Any] = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, cwd=project, env=environment(), **streams) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("step 1/6"))
        process.send_signal(signal.SIGUSR1)  # as when its parent dies, which does not count as one of two
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 75, said
    found = re.fullmatch(r"train: SIG(USR1|TERM): resumable at step (\d); the same command.*", said.splitlines()[-1])
    assert found is not None
    assert not (project / "signal/models").exists()
    done = subprocess.run(arguments, cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"checkpoint-{found[2]}\n" in done.stdout
    assert same(whole, project / "signal")


def test_when_the_time_is_up_nothing_more_is_trained(project: Path, trained: Train) -> None:
    with pytest.raises(Interrupted, match=r"^the time limit: stopped before the first update; the same command starts"):
        trained("late", "runtime.time_limit=1s", "runtime.checkpoint_root=.late")
    assert not (project / "late").exists()


def test_training_ends_while_another_update_still_fits_the_time(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserves = []

    def up_at_the_third(self: Interruption, reserve: float) -> bool:
        reserves.append(reserve)
        self.reason = "the time limit" if len(reserves) == 4 else None  # the first is asked before any update
        return self.reason is not None

    monkeypatch.setattr(Interruption, "time_is_up", up_at_the_third)
    with pytest.raises(Interrupted, match=r"^the time limit: resumable at step 3; "):
        trained("late", "runtime.checkpoint_root=.late")
    assert reserves[0] == reserves[1] == 0
    assert reserves[-1] > 0


def test_patience_ends_training_and_the_best_weights_are_kept(project: Path, trained: Train) -> None:
    # A rate at which the loss falls and rises again.
    settings = ["train.patience=2", "train.eval_steps=1", "train.max_steps=12", "train.lr=0.05", "train.save_steps=50"]
    settings += ["train.scheduler=constant", "train.warmup_ratio=0", "train.save_total_limit=1"]
    trained("patient", *settings, "runtime.checkpoint_root=.patient")
    found = report(project / "patient")
    curve = [row for row in csv.DictReader(losses(project / "patient").splitlines()) if row["split"] == "validation"]
    best = min(curve, key=lambda row: float(row["loss"]))
    assert found["steps"] == found["best_step"] + 2 == len(curve) < 12
    assert (int(best["step"]), float(best["loss"])) == (found["best_step"], found["validation_loss"])
    (kept,) = project.glob(f".patient/*/checkpoint-{best['step']}")
    assert sha256(kept / "adapter_model.safetensors") == sha256(
        project / "patient" / ADAPTER / "adapter_model.safetensors"
    )
    trained("again", *settings, "runtime.checkpoint_root=.patient")
    assert report(project / "again")["steps"] == found["steps"]
    assert same(project / "patient", project / "again")


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes updates from the fifth on run out of memory with more rows than fit."""

    def with_room_for(rows: int) -> None:
        honest = Trainer.training_step

        def step(self: Trainer, model: Any, inputs: Any, *args: Any) -> Any:
            if self.state.global_step >= 4 and len(inputs[0]["input_ids"]) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return honest(self, model, inputs, *args)

        monkeypatch.setattr(Trainer, "training_step", step)

    return with_room_for


def test_a_full_gpu_halves_the_micro_batch_and_goes_on_from_the_checkpoint(
    project: Path, whole: Path, trained: Train, small_gpu: Callable[[int], None]
) -> None:
    small_gpu(2)
    said = trained("full", "runtime.checkpoint_root=.full")
    assert "the GPU's memory is full: on from checkpoint-3, 2 rows at once\n" in said
    found = report(project / "full")
    assert (found["micro_batch"], found["effective_batch"], found["sessions"]) == (2, 16, 2)
    assert found["tokens"] == report(whole)["tokens"]
    assert found["validation_loss"] == pytest.approx(report(whole)["validation_loss"], rel=1e-3)
    trained("full", "runtime.checkpoint_root=.full")  # what fits is remembered
    assert report(project / "full")["micro_batch"] == 2


@pytest.mark.parametrize(("room", "rows"), [(1, 4), (0, 1)])
def test_a_gpu_that_stays_full_ends_in_one_line(
    project: Path, trained: Train, small_gpu: Callable[[int], None], room: int, rows: int
) -> None:
    small_gpu(room)
    settings = [f"train.batch_size={rows}", f"runtime.checkpoint_root=.tight{room}"]
    again = r"full with 2 rows at once, too; run again, to go on with 1$"
    with pytest.raises(UserError, match=again if room else r"does not hold one row; lower") as raised:
        trained(f"tight{room}", *settings)
    assert "\n" not in str(raised.value)
    assert not (project / f"tight{room}").exists()
    if room:  # what the line says
        trained("tight1", *settings)
        assert report(project / "tight1")["micro_batch"] == 1


def test_a_batch_size_of_auto_keeps_the_effective_batch(project: Path, trained: Train) -> None:
    said = trained("auto", "train.batch_size=auto", "train.effective_batch=24", "runtime.checkpoint_root=.auto")
    assert "  8 rows at once, activations kept, layers not compiled: more are no faster on a CPU; " in said
    trained("fixed", "train.batch_size=8", "train.gradient_accumulation_steps=3", "runtime.checkpoint_root=.fixed")
    assert same(project / "auto", project / "fixed")
    assert report(project / "auto")["effective_batch"] == 24


def test_long_conversations_go_fewer_at_once_on_a_cpu(
    project: Path, trained: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batch, "CPU_TOKENS", 100)
    trained("few", "train.batch_size=auto", "train.max_steps=1", "runtime.checkpoint_root=.few")
    assert 1 <= report(project / "few")["micro_batch"] < 4


def test_a_packed_training_resumes_to_the_bit_within_an_epoch(project: Path, trained: Train) -> None:
    settings = ["train.packing=true", "train.batch_size=2", "train.gradient_accumulation_steps=5", "train.max_steps=13"]
    settings += ["train.lora.dropout=0.1", "train.max_length=256"]
    trained("packed", *settings, "runtime.checkpoint_root=.packed")
    trained("stopped", *settings, "runtime.checkpoint_root=.stopped", "train.stop_step=8")
    trained("stopped", *settings, "runtime.checkpoint_root=.stopped")
    assert same(project / "packed", project / "stopped")
    assert losses(project / "packed") == losses(project / "stopped")
    assert report(project / "packed")["epochs"] > 1


def test_too_many_cut_conversations_are_refused_with_the_figures(project: Path, trained: Train) -> None:
    with pytest.raises(UserError, match=r"^48\.1% of the train rows \(50 of 104\) are cut or left out at"):
        trained("refused", "train.max_length=48")
    assert not (project / "refused").exists()


def test_an_interrupted_training_is_one_mlflow_run(
    project: Path, trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(tracking, "HURRY", 100.0)  # a busy machine may take longer to make MLflow's database
    settings = ["tracking=mlflow", "train.logging_steps=1"]

    def asked(self: StopWhenAsked, *args: Any, **_: Any) -> None:
        self.interruption.reason = "SIGTERM" if args[1].global_step == 4 else None

    with monkeypatch.context() as patch:
        patch.setattr(StopWhenAsked, "on_step_begin", asked)
        with pytest.raises(Interrupted, match=r"resumable at step 5"):
            trained("tracked", *settings)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("tunesmith")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    shutil.rmtree(next(tmp_path.glob(".checkpoints/*/checkpoint-5")))  # so that steps 4 and 5 come twice
    trained("tracked", *settings)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["interruptions"].startswith("SIGTERM: resumable at step 5")
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train.loss")]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert run.data.metrics["train.sessions"] == 2


def test_a_gpu_that_is_not_there_is_refused_in_one_line(project: Path, trained: Train) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"^runtime\.device is cuda but PyTorch sees no GPU"):
        trained("refused", "runtime.device=cuda")


def test_without_prepared_data_the_command_ends_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(command(), cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert refused(done) == f"train: data/prepared/made_from.json is missing; first {TO_PREPARE}"
    assert not (tmp_path / "models").exists()


def test_the_jobs_of_a_sweep_have_one_data_set(project: Path, tmp_path: Path) -> None:
    grid = ["-m", "data=alpaca,finetome", f"hydra.sweep.dir={tmp_path}/sweep"]
    done = subprocess.run(command(*grid), cwd=project, env=environment(), capture_output=True, text=True)
    assert refused(done) == (
        "train: the jobs of a sweep share one data/prepared and cannot differ in data; experiments do not: "
        "`dvc exp run --queue -S data=a,b`, then `dvc queue start`"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_over_other_data_ends_before_its_first_job(project: Path, tmp_path: Path) -> None:
    grid = ["-m", "train.seed=1,2", "data.max_rows=50", f"hydra.sweep.dir={tmp_path}/sweep"]
    done = subprocess.run(command(*grid), cwd=project, env=environment(), capture_output=True, text=True)
    said = "train: data/prepared is not what the configuration asks for: data.max_rows is 50 and was None; run "
    assert refused(done).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_each_job_of_a_sweep_over_experiments_looks_at_its_data(project: Path, tmp_path: Path) -> None:
    grid = ["-m", "experiment=r2-3b,r5", f"hydra.sweep.dir={tmp_path}/sweep"]
    ours = [setting for setting in SETTINGS if not setting.startswith(("data.", "model"))]
    line = [sys.executable, "-m", "pipeline.stages.train", *grid, *ours]
    done = subprocess.run(line, cwd=project, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert ": data/prepared is not what the configuration asks for: data." in done.stderr
    assert "data.files is [] and was ['chats.jsonl']" in done.stderr
    assert not any((tmp_path / "sweep").glob("*/models"))


def test_training_on_other_data_is_refused(project: Path) -> None:
    line = command("data.seed=7")
    done = subprocess.run(line, cwd=project, env=environment(), capture_output=True, text=True)
    assert "asks for: data.seed is 7 and was 0; run `dvc repro prepare`, or" in refused(done)


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

    ranked = re.findall(r"^ +(\d) +(\d) +(0\.00\d) ", done.stdout, flags=re.MULTILINE)
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
    assert parent.data.tags["best_trial"] == ranked[0][1]
