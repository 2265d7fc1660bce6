"""Base against tuned and every GGUF on a few rows, what is refused, and what an interruption leaves to do."""

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
import torch
from safetensors.torch import load_file, save_file

from pipeline import evaluate
from pipeline.compose import flatten
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.evaluation.gate import failed
from serve.cards import read_card, read_prompts
from serve.models import find_models

REPO = Path(__file__).parents[2]
Settings = Callable[..., Config]


@pytest.fixture
def project(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exported project to break."""
    for name in ("models", "data"):
        shutil.copytree(exported / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(config: Config, out: Path) -> None:
    evaluate.main.__wrapped__.__wrapped__(config, out)  # below Hydra and its error line


@pytest.fixture(scope="module")
def reports(exported: Path, tuned_config: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(exported)
        run(tuned_config(), out)
    return out / "reports"


@pytest.fixture(scope="module")
def metrics(reports: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((reports / "metrics.json").read_text())
    return figures


def refused(config: Config, out: Path) -> str:
    """The one line that an evaluation ends with; no report is left."""
    with pytest.raises(UserError) as raised:
        run(config, out)
    assert "\n" not in str(raised.value)
    assert not (out / "reports").exists()
    return str(raised.value)


@pytest.fixture(scope="module")
def evaluation(reports: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((reports / "evaluation.json").read_text())
    return found


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


def test_the_metrics_are_the_evaluations_figures(metrics: dict[str, Any], evaluation: dict[str, Any]) -> None:
    assert metrics["base"] == evaluation["base_model"]
    assert metrics["tuned"] == evaluation["tuned_model"]
    assert metrics["gain"] == evaluation["gain"]
    assert metrics["passed"] == int(evaluation["verdict"]["passed"])
    for key, figures in evaluation["gguf"].items():
        known = {name: value for name, value in figures.items() if name != "of" and value is not None}
        assert metrics["gguf"][key] == known


def test_the_gain_is_of_the_same_conversations(evaluation: dict[str, Any]) -> None:
    base, tuned, gain = (evaluation[name] for name in ("base_model", "tuned_model", "gain"))
    assert gain["loss"] == pytest.approx(base["loss"] - tuned["loss"], abs=2e-5)
    assert gain["low"] < gain["loss"] < gain["high"]


def test_the_tuned_model_is_the_one_in_the_files(metrics: dict[str, Any]) -> None:
    assert abs(metrics["base"]["loss"] - metrics["tuned"]["loss"]) > 0.01
    assert metrics["gguf"]["F16"]["loss"] == pytest.approx(metrics["tuned"]["loss"], abs=0.02)
    assert metrics["gguf"]["Q8_0"]["loss"] == pytest.approx(metrics["tuned"]["loss"], abs=0.05)
    assert metrics["gguf"]["base-Q8_0"]["loss"] == pytest.approx(metrics["base"]["loss"], abs=0.05)


def test_what_the_manifest_says_of_a_file_stands_with_its_figures(metrics: dict[str, Any], exported: Path) -> None:
    manifest = json.loads((exported / "models/gguf/manifest.json").read_text())
    assert len(manifest["files"]) == len(metrics["gguf"])
    for file, (key, figures) in zip(manifest["files"], metrics["gguf"].items(), strict=True):
        assert key == (file["type"] if file["of"] == "tuned" else f"base-{file['type']}")
        assert figures["bytes"] == (exported / "models/gguf" / file["file"]).stat().st_size
        assert (figures["kl"], figures["top_1"]) == (file["kl"], file["top_1"])
        assert "tokens_per_second" not in figures  # of 6 tokens
        assert 0 < figures["first_token_seconds"] < figures["answer_seconds"]


def test_every_model_answers_every_prompt(evaluation: dict[str, Any]) -> None:
    assert list(evaluation["answers"]) == ["base", "tuned", "F16", "Q8_0", "base-Q8_0"]
    for answers in evaluation["answers"].values():
        assert len(answers) == len(evaluation["prompts"]) == 1
        assert set(answers[0]) == {"reply", "tokens", "first_token_seconds", "seconds", "tokens_per_second"}
        assert 0 < answers[0]["tokens"] <= 6
        assert answers[0]["tokens_per_second"] is None
    assert evaluation["answers"]["tuned"][0]["reply"] != evaluation["answers"]["base"][0]["reply"]


def test_lengths_are_of_the_test_answers_and_of_all_replies(evaluation: dict[str, Any]) -> None:
    assert evaluation["rows"] == 6
    assert evaluation["questions"] == 5
    assert len(evaluation["lengths"]["reference"]) >= 6
    assert sum(evaluation["lengths"]["reference"]) == evaluation["tokens"]
    for name in ("base", "tuned"):
        assert len(evaluation["lengths"][name]) == 5 + 1
        mean = sum(evaluation["lengths"][name]) / 6
        assert evaluation[f"{name}_model"]["texts"]["mean_tokens"] == pytest.approx(mean, abs=1e-4)


def test_the_verdict_says_what_failed_or_is_missing_and_the_stage_ends_well(
    evaluation: dict[str, Any], project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    assert not evaluation["verdict"]["passed"]  # the adapter is made of random numbers
    assert "gain" in [check["name"] for check in failed(evaluation["verdict"])]
    few = ("evaluate.max_rows=2", "evaluate.max_questions=1", "evaluate.prompts=[]")
    lenient = ("evaluate.gate.min_gain=-99", "evaluate.gate.max_quantization_loss=9", "evaluate.gate.max_task_drop=1")
    run(tuned_config(*few), project)
    assert "verdict: fail" in capsys.readouterr().out
    run(tuned_config(*few, *lenient), project)
    missing = "verdict: too few to tell: 48 more test conversations and 49 more questions\n"
    assert missing in capsys.readouterr().out
    assert json.loads((project / "reports/metrics.json").read_text())["passed"] == 0
    run(tuned_config(*few, *lenient, "evaluate.gate.min_rows=2", "evaluate.gate.min_questions=1"), project)
    assert re.search(r"^verdict: pass, \d+ checks$", capsys.readouterr().out, re.MULTILINE)
    assert json.loads((project / "reports/metrics.json").read_text())["passed"] == 1


def test_a_diverged_training_ends_in_a_verdict_that_says_so(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    weights = project / "models/adapter/adapter_model.safetensors"
    diverged = {name: torch.full_like(tensor, math.nan) for name, tensor in load_file(weights).items()}
    save_file(diverged, weights, metadata={"format": "pt"})
    manifest = project / "models/gguf/manifest.json"
    manifest.write_text(re.sub(r'"kl": [\d.e-]+', '"kl": null', manifest.read_text(), count=1))
    run(tuned_config("evaluate.max_questions=2", "evaluate.max_rows=2"), project)
    said = capsys.readouterr().out
    assert re.search(r"^verdict: fail", said, re.MULTILINE)
    assert re.search(r"^  finite: no finite number: tuned_model\.loss, .*gguf\.F16\.kl", said, re.MULTILINE)
    assert re.search(r"^  gain: ", said, re.MULTILINE)
    evaluation = json.loads((project / "reports/evaluation.json").read_text())
    assert evaluation["tuned_model"]["perplexity"] is None
    assert "loss" not in json.loads((project / "reports/metrics.json").read_text())["tuned"]
    assert (project / "reports/evaluation.html").is_file()


def test_the_reports_and_the_models_readme_are_written(reports: Path) -> None:
    text = (reports / "evaluation.md").read_text(encoding="utf-8")
    assert "What is 5 + 6?" in text
    assert "What is 5 + 6?" in (reports / "evaluation.html").read_text(encoding="utf-8")
    assert (reports / "evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert "starter-s" in (reports.parent / "models/README.md").read_text(encoding="utf-8")


def test_the_chat_finds_its_card(
    reports: Path, metrics: dict[str, Any], exported: Path, tuned_config: Settings, tmp_path: Path
) -> None:
    shutil.copytree(exported / "models/gguf", tmp_path / "gguf")
    shutil.copy2(reports.parent / "models/card.json", tmp_path)
    model = find_models(tmp_path / "gguf")["starter-s-Q8_0"]
    card = read_card(model)
    assert card.facts["Base"].endswith("starter-s")
    assert card.figures["base"].loss == metrics["base"]["loss"]
    assert card.figures["tuned"].accuracy == metrics["tuned"]["accuracy"]
    assert card.figures["this file"].perplexity == metrics["gguf"]["Q8_0"]["perplexity"]
    assert read_prompts(model) == tuned_config().evaluate.prompts


def test_without_questions_there_is_no_accuracy(project: Path, tuned_config: Settings) -> None:
    (project / "data/prepared/questions.jsonl").write_bytes(b"")
    run(tuned_config("evaluate.max_rows=2", "evaluate.prompts=[]"), project)
    figures = json.loads((project / "reports/metrics.json").read_text())
    assert "accuracy" not in figures["tuned"]
    assert "tokens_per_second" not in figures["gguf"]["F16"]
    evaluation = json.loads((project / "reports/evaluation.json").read_text())
    assert evaluation["gguf"]["F16"]["answer_seconds"] is None
    assert evaluation["answers"]["Q8_0"] == []
    assert "finite" not in [check["name"] for check in failed(evaluation["verdict"])]


def test_one_conversation_and_one_question_tell_next_to_nothing(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    lenient = ("evaluate.gate.min_gain=-99", "evaluate.gate.max_quantization_loss=9", "evaluate.gate.max_task_drop=1")
    run(tuned_config("evaluate.max_rows=1", "evaluate.max_questions=1", *lenient), project)
    said = capsys.readouterr().out
    assert "verdict: too few to tell: 49 more test conversations and 49 more questions\n" in said
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


def test_the_shares_of_the_held_out_group_are_the_headline(project: Path, tuned_config: Settings) -> None:
    questions = [
        {"prompt": "?", "answer": "never said", "kind": "text", "group": group, "task": "t"}
        for group in ("unasked", "held_out")
    ]
    text = "".join(json.dumps(question) + "\n" for question in questions)
    (project / "data/prepared/questions.jsonl").write_text(text)
    run(tuned_config("evaluate.max_rows=2", "evaluate.prompts=[]"), project)
    tuned = json.loads((project / "reports/metrics.json").read_text())["tuned"]
    assert tuned["accuracy"] == tuned["accuracy_by_group"]["held_out"]
    assert list(tuned["accuracy_by_group"]) == ["unasked", "held_out"]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("models/adapter/lineage.json", "models/adapter/lineage.json is missing; run `dvc repro train` first"),
        ("data/prepared/test.parquet", "data/prepared/test.parquet is missing; run `dvc repro prepare` first"),
        ("models/gguf/manifest.json", "models/gguf/manifest.json is missing; run `dvc repro export` first"),
    ],
)
def test_what_an_earlier_stage_has_not_written_is_named_with_the_stage(
    project: Path, tuned_config: Settings, missing: str, said: str
) -> None:
    (project / missing).unlink()
    assert refused(tuned_config("evaluate.max_questions=1", "evaluate.prompts=[]"), project) == said


def test_a_manifest_without_checks_is_refused(project: Path, tuned_config: Settings) -> None:
    path = project / "models/gguf/manifest.json"
    manifest = json.loads(path.read_text())
    for file in manifest["files"]:
        del file["kl"]
    path.write_text(json.dumps(manifest))
    said = refused(tuned_config(), project)
    assert said == (
        "models/gguf/manifest.json has no checks of starter-s-F16.gguf; run `dvc repro export`, which makes them"
    )


def test_rows_with_nothing_to_score_are_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("evaluate.max_length=8"), project)
    assert said == "no test row has an assistant token within evaluate.max_length 8; raise it"


def test_a_cut_gguf_is_refused(project: Path, tuned_config: Settings) -> None:
    path = project / "models/gguf/starter-s-Q8_0.gguf"
    path.write_bytes(path.read_bytes()[:1_500_000])
    said = refused(tuned_config("evaluate.max_questions=1", "evaluate.prompts=[]"), project)
    assert said.startswith("models/gguf/starter-s-Q8_0.gguf (1500000 bytes) is no whole GGUF model: ")


def test_evaluating_on_other_data_is_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("data.max_rows=30"), project)
    assert said.startswith(
        "data/prepared is not what the configuration asks for: data.max_rows is 30 and was None; run "
    )


def test_an_adapter_of_another_base_is_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("model=starter-m", f"model.path={REPO}/starter/models/starter-m"), project)
    assert said.startswith("models/adapter was tuned from ")


PARTS = [
    f"{model}-{what}"
    for model in ("base", "tuned", "F16", "Q8_0", "base-Q8_0")
    for what in ("loss", "questions", "prompts")
]


def measured(output: str, how: str = "measuring (.+)") -> list[str]:
    return re.findall(rf"^{how}$", output, re.MULTILINE)


def test_an_evaluation_that_was_killed_goes_on_with_what_it_has_measured(
    project: Path,
    tuned_settings: list[str],
    tuned_config: Settings,
    metrics: dict[str, Any],
    capsys: pytest.CaptureFixture,
) -> None:
    command = [sys.executable, "-m", "pipeline.evaluate", *tuned_settings, f"hydra.run.dir={project}"]
    environment = os.environ | {"PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line == "measuring tuned-prompts\n":
                process.kill()
                break
        process.wait()
    assert measured(said) == PARTS[:6]
    assert not (project / "reports").exists()
    run(tuned_config(), project)
    again = capsys.readouterr().out
    assert measured(again, "(.+): measured before the interruption") == PARTS[:5]
    assert measured(again) == PARTS[5:]
    figures = json.loads((project / "reports/metrics.json").read_text())
    assert figures["base"]["loss"] == metrics["base"]["loss"]
    assert figures["gguf"]["Q8_0"]["loss"] == metrics["gguf"]["Q8_0"]["loss"]
    assert list((project / ".checkpoints").glob("*/*")) == []


@pytest.mark.parametrize(
    ("change", "goes_on"),
    [
        (("evaluate.batch_size=2", "evaluate.gate.min_gain=1"), True),
        (("evaluate.max_rows=3",), False),
        (("evaluate.prompts=[Hello]",), False),
    ],
)
def test_measurements_of_other_settings_are_not_taken(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture, change: tuple[str, ...], goes_on: bool
) -> None:
    few = ("evaluate.max_questions=1", "evaluate.max_rows=2")
    broken = project / "models/gguf/starter-s-base-Q8_0.gguf"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1_500_000])
    refused(tuned_config(*few), project)
    broken.write_bytes(whole)
    capsys.readouterr()
    run(tuned_config(*few, *change), project)
    assert measured(capsys.readouterr().out) == (PARTS[12:] if goes_on else PARTS)


def test_measurements_of_another_adapter_are_not_taken(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    settings = tuned_config("evaluate.max_questions=1", "evaluate.prompts=[]")
    broken = project / "models/gguf/starter-s-Q8_0.gguf"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1_500_000])
    refused(settings, project)
    broken.write_bytes(whole)
    adapter = project / "models/adapter/adapter_config.json"
    adapter.write_text(adapter.read_text().replace('"lora_alpha": 8', '"lora_alpha": 4'))
    capsys.readouterr()
    run(settings, project)
    assert measured(capsys.readouterr().out) == PARTS
