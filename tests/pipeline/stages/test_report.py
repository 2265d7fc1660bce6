"""The verdict, the pages and the cards, out of measurements that a real evaluation has left."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recorded_run
import torch
from safetensors.torch import load_file, save_file

from common.errors import UserError
from pipeline.core.config import Config
from pipeline.core.mappings import flatten
from pipeline.report.numbers import headlines
from pipeline.report.record import Evaluation
from pipeline.report.verdict import failed
from pipeline.stages import evaluate, report
from serve.models.cards import read_card, read_prompts
from serve.models.registry import find_models

REPO = Path(__file__).parents[3]
Settings = Callable[..., Config]
LENIENT = ("evaluate.gate.min_gain=-99", "evaluate.gate.max_quantization_loss=9", "evaluate.gate.max_task_drop=1")
WRITTEN = {
    *(f"reports/{name}" for name in ("evaluation.html", "evaluation.json", "evaluation.md", "evaluation.png")),
    *(
        "reports/gguf.csv",
        "reports/lengths.csv",
        "reports/metrics.json",
        "reports/headlines.json",
        "models/README.md",
        "models/card.json",
    ),
}


@pytest.fixture
def project(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the measured project to break."""
    for name in ("models", "data", "reports"):
        shutil.copytree(measured / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def reported(measured: Path, tuned_config: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage writes of the shared project."""
    out = tmp_path_factory.mktemp("reported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(measured)
        report.run(tuned_config(), out)
    return out


@pytest.fixture(scope="module")
def metrics(reported: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((reported / "reports/metrics.json").read_text())
    return figures


@pytest.fixture(scope="module")
def evaluation(reported: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((reported / "reports/evaluation.json").read_text())
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in WRITTEN}


def test_the_metrics_are_nested_by_model_and_file(metrics: dict[str, Any]) -> None:
    assert list(metrics) == ["base", "tuned", "gain", "gguf", "passed"]
    assert list(metrics["gguf"]) == ["F16", "Q8_0", "base-Q8_0"]
    for figures in (metrics["base"], metrics["tuned"], *metrics["gguf"].values()):
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]), rel=1e-4)
        for key in ("loss", "perplexity", "accuracy"):
            assert 0 <= figures[f"{key}_low"] <= figures[key] <= figures[f"{key}_high"]
        assert figures["loss_low"] < figures["loss"] < figures["loss_high"]
        assert sum(key.startswith("held_out/") for key in figures["accuracy_by_task"]) >= 1
        assert 0 < figures["texts"]["distinct_1"] <= 1
    for name in ("base", "tuned"):
        assert metrics[name]["samples_per_second"] > 0
    assert all(isinstance(value, int | float) for value in flatten(metrics).values())


def told(figures: dict[str, Any]) -> dict[str, Any]:
    """Those that are numbers; a metric is nothing else."""
    within = {name: told(value) if isinstance(value, dict) else value for name, value in figures.items()}
    return {name: value for name, value in within.items() if value is not None}


def test_the_metrics_are_the_evaluations_figures(metrics: dict[str, Any], evaluation: dict[str, Any]) -> None:
    assert metrics["base"] == told(evaluation["base_model"])
    assert metrics["tuned"] == told(evaluation["tuned_model"])
    assert metrics["gain"] == evaluation["gain"]
    assert metrics["passed"] == int(evaluation["verdict"]["passed"])
    for key, figures in evaluation["gguf"].items():
        assert metrics["gguf"][key] == {name: value for name, value in told(figures).items() if name != "of"}


def test_the_headlines_are_few_and_are_those_of_the_whole_report(reported: Path, metrics: dict[str, Any]) -> None:
    found = json.loads((reported / "reports/headlines.json").read_text())
    assert len(found) <= 15
    for model in ("base", "tuned"):
        for figure in ("loss", "perplexity", "accuracy"):
            assert found[f"{model}_{figure}"] == metrics[model][figure]
    smallest = min((metrics["gguf"][kind] for kind in ("F16", "Q8_0")), key=lambda file: file["bytes"])
    for figure in ("bytes", "kl", "answer_seconds"):
        assert found[f"gguf_{figure}"] == smallest[figure]
    assert found["passed"] == metrics["passed"]


def test_headlines_of_what_was_not_measured_are_left_out() -> None:
    tree = recorded_run.evaluation(questions=0)
    bare = Evaluation.parse(
        {
            **tree,
            "training": None,
            "prepared": None,
            "gguf": {},
            "answers": {name: tree["answers"][name] for name in ("base", "tuned")},
        },
        "",
    )
    left = {"base_loss", "tuned_loss", "base_perplexity", "tuned_perplexity", "passed"}
    assert headlines(bare).keys() == left


def test_what_was_measured_stands_in_the_evaluation_as_it_was(evaluation: dict[str, Any], measured: Path) -> None:
    found = json.loads((measured / "reports/measurements.json").read_text())
    del found["settings"], evaluation["settings"]["evaluate"]["gate"]
    assert {key: evaluation[key] for key in found} == found
    assert set(evaluation) - set(found) == {"settings", "verdict", "training", "curve", "prepared"}


def repeat_rows(path: Path, times: int) -> None:
    """Give a few measured rows and questions so often that their gates have bounds."""
    tree = json.loads(path.read_text())
    for kind in ("rows", "questions"):
        tree[kind] = [f"{digest}-{number}" for number in range(times) for digest in tree[kind]]
    for kind in ("tokens", "numbers", "groups", "tasks"):
        tree[kind] *= times
    for found in tree["models"].values():
        found["nats"] *= times
        found["right"] *= times
    path.write_text(json.dumps(tree))


def test_a_verdict_follows_the_thresholds_without_another_measurement(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    shutil.rmtree("data")  # nothing of it is read
    report.run(tuned_config(), project)
    said = capsys.readouterr().out
    assert "verdict: too few to tell: 64 more test conversations and 45 more questions\n" in said
    first = contents(project)
    few = (project / "reports/rows.json").read_bytes()
    repeat_rows(project / "reports/rows.json", 15)
    report.run(tuned_config("evaluate.gate.min_gain=9"), project)
    said = capsys.readouterr().out
    assert re.search(r"^verdict: fail, 1 of \d checks$", said, re.MULTILINE)
    assert "\n  gain: " in said
    assert [one.name for one in failed(Evaluation.read(project / "reports/evaluation.json").verdict)] == ["gain"]
    report.run(tuned_config(*LENIENT), project)
    missing = "verdict: too few to tell: 64 more test conversations and 45 more questions\n"
    assert missing in capsys.readouterr().out
    assert json.loads((project / "reports/metrics.json").read_text())["passed"] == 0
    enough = ("evaluate.gate.min_rows=6", "evaluate.gate.min_questions=5")
    report.run(tuned_config(*LENIENT, *enough), project)
    assert re.search(r"^verdict: pass, \d+ checks$", capsys.readouterr().out, re.MULTILINE)
    assert json.loads((project / "reports/metrics.json").read_text())["passed"] == 1
    changed = {name for name, content in contents(project).items() if content != first[name]}
    judged = {f"reports/evaluation.{kind}" for kind in ("html", "json", "md")}
    assert changed == judged | {"reports/metrics.json", "reports/headlines.json", "models/README.md"}
    (project / "reports/rows.json").write_bytes(few)
    report.run(tuned_config(), project)
    assert contents(project) == first


def test_it_loads_no_library_of_models(project: Path, tuned_settings: list[str]) -> None:
    stage = ("-X", "importtime", "-m", "pipeline.stages.report")  # each import is a line of stderr
    command = [sys.executable, *stage, *tuned_settings, f"hydra.run.dir={project}", "hydra.output_subdir=null"]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "verdict: too few to tell" in ran.stdout
    assert all((project / name).is_file() for name in WRITTEN)
    loaded = set(re.findall(r"\| +([\w.]+)$", ran.stderr, re.MULTILINE))
    assert "pipeline.report.record" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "peft", "datasets", "llama_cpp", "mlflow"})


@pytest.mark.parametrize(
    ("path", "made_by"), [("reports/measurements.json", "evaluate"), ("models/gguf/manifest.json", "export")]
)
def test_what_does_not_belong_together_is_refused(
    project: Path, tuned_config: Settings, path: str, made_by: str
) -> None:
    record = json.loads((project / path).read_text())
    (project / path).write_text(json.dumps(record | {"fingerprint": "0" * 16}))
    with pytest.raises(UserError, match=r"^models/adapter, models/gguf and reports/measurements.json are not of one"):
        report.run(tuned_config(), project)
    (project / path).unlink()
    with pytest.raises(UserError, match=rf"^{path} is missing; run `dvc repro {made_by}` first$"):
        report.run(tuned_config(), project)
    assert not (project / "reports/evaluation.json").exists()


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        (
            "models/gguf/manifest.json",
            lambda tree: tree["files"].append(tree["files"][0] | {"file": "more.gguf", "type": "Q4_0"}),
            "reports/measurements.json is not of the Q4_0 file that models/gguf has; run `dvc repro evaluate`",
        ),
        (
            "models/gguf/manifest.json",
            lambda tree: tree["files"].pop(),
            "reports/measurements.json is not of the base-Q8_0 file that models/gguf has; run `dvc repro evaluate`",
        ),
        (
            "models/gguf/manifest.json",
            lambda tree: tree["files"][0].update(bytes=7),
            "reports/measurements.json is not of the F16 file that models/gguf has; run `dvc repro evaluate`",
        ),
        (
            "reports/train.json",
            lambda tree: tree.update(fingerprint="0" * 16),
            "what is in reports does not belong together: training.fingerprint: 0000000000000000, and all else is of",
        ),
    ],
)
def test_what_others_wrote_of_it_must_be_of_the_same(
    project: Path, tuned_config: Settings, path: str, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    (project / "reports/train.json").write_text("{}")  # nothing was trained here
    tree = json.loads((project / path).read_text())
    change(tree)
    (project / path).write_text(json.dumps(tree))
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        report.run(tuned_config(), project)
    assert not (project / "reports/evaluation.json").exists()


def test_a_diverged_training_ends_in_a_verdict_that_says_so(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    weights = project / "models/adapter/adapter_model.safetensors"
    diverged = {name: torch.full_like(tensor, math.nan) for name, tensor in load_file(weights).items()}
    save_file(diverged, weights, metadata={"format": "pt"})
    manifest = project / "models/gguf/manifest.json"
    manifest.write_text(re.sub(r'"kl": [\d.e-]+', '"kl": null', manifest.read_text(), count=1))
    few = tuned_config("evaluate.max_questions=2", "evaluate.max_rows=2")
    evaluate.run(few, project)
    capsys.readouterr()
    report.run(few, project)
    said = capsys.readouterr().out
    assert re.search(r"^verdict: fail", said, re.MULTILINE)
    assert re.search(r"^  finite: no finite number: tuned_model\.loss, .*gguf\.F16\.kl", said, re.MULTILINE)
    assert re.search(r"^  gain: ", said, re.MULTILINE)
    evaluation = json.loads((project / "reports/evaluation.json").read_text())
    assert evaluation["tuned_model"]["perplexity"] is None
    assert "loss" not in json.loads((project / "reports/metrics.json").read_text())["tuned"]
    assert (project / "reports/evaluation.html").is_file()


def test_one_conversation_and_one_question_tell_next_to_nothing(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    one = tuned_config("evaluate.max_rows=1", "evaluate.max_questions=1", *LENIENT)
    evaluate.run(one, project)
    report.run(one, project)
    said = capsys.readouterr().out
    assert "verdict: too few to tell: 69 more test conversations and 49 more questions\n" in said
    figures = json.loads((project / "reports/metrics.json").read_text())
    for name in ("base", "tuned"):
        assert {"loss", "perplexity", "accuracy"} <= set(figures[name])
        assert not [key for key in figures[name] if key.startswith(("loss_", "perplexity_"))]
        assert figures[name]["accuracy_high"] - figures[name]["accuracy_low"] == pytest.approx(0.975)
    text = (project / "reports/evaluation.md").read_text(encoding="utf-8")
    assert f"| loss, nats a token | {figures['base']['loss']:.4f} (interval unknown) |" in text
    assert "; 1 conversation, " in text
    assert ", 1 question; " in text
    page = (project / "reports/evaluation.html").read_text(encoding="utf-8")
    assert "both measured on\n1 conversation with " in page
    assert "(interval unknown)" in page


def test_the_reports_and_the_models_readme_are_written(reported: Path) -> None:
    text = (reported / "reports/evaluation.md").read_text(encoding="utf-8")
    assert "What is 5 + 6?" in text
    assert "What is 5 + 6?" in (reported / "reports/evaluation.html").read_text(encoding="utf-8")
    assert (reported / "reports/evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert "starter-s" in (reported / "models/README.md").read_text(encoding="utf-8")


def test_the_chat_finds_its_card(
    reported: Path, metrics: dict[str, Any], exported: Path, tuned_config: Settings, tmp_path: Path
) -> None:
    shutil.copytree(exported / "models/gguf", tmp_path / "gguf")
    shutil.copy2(reported / "models/card.json", tmp_path)
    model = find_models(tmp_path / "gguf")["starter-s-Q8_0"]
    card = read_card(model)
    assert card.facts["Base"].endswith("starter-s")
    assert card.figures["base"].loss == metrics["base"]["loss"]
    assert card.figures["tuned"].accuracy == metrics["tuned"]["accuracy"]
    assert card.figures["this file"].perplexity == metrics["gguf"]["Q8_0"]["perplexity"]
    assert read_prompts(model) == tuned_config().evaluate.prompts
