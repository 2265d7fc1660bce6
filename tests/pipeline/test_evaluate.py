"""Base against tuned and every GGUF on a few rows, and what is refused."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import evaluate
from pipeline.config import Config
from pipeline.errors import UserError
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


def test_the_metrics_are_nested_by_model_and_file(metrics: dict[str, Any]) -> None:
    assert list(metrics) == ["base", "tuned", "gguf"]
    assert list(metrics["gguf"]) == ["F16", "Q8_0"]
    for figures in (metrics["base"], metrics["tuned"], *metrics["gguf"].values()):
        assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]), rel=1e-4)
    for name in ("base", "tuned"):
        assert 0 <= metrics[name]["accuracy"] <= 1
        assert metrics[name]["samples_per_second"] > 0
        assert sum(key.startswith("held_out/") for key in metrics[name]["accuracy_by_task"]) >= 1


def test_the_tuned_model_is_the_one_in_the_files(metrics: dict[str, Any]) -> None:
    assert abs(metrics["base"]["loss"] - metrics["tuned"]["loss"]) > 0.01
    assert metrics["gguf"]["F16"]["loss"] == pytest.approx(metrics["tuned"]["loss"], abs=0.02)
    assert metrics["gguf"]["Q8_0"]["loss"] == pytest.approx(metrics["tuned"]["loss"], abs=0.05)


def test_sizes_and_speeds_are_of_the_files(metrics: dict[str, Any], exported: Path) -> None:
    for kind, figures in metrics["gguf"].items():
        assert figures["bytes"] == (exported / f"models/gguf/starter-s-{kind}.gguf").stat().st_size
        assert figures["tokens_per_second"] > 0


def test_the_report_shows_prompts_answers_and_figures(reports: Path, metrics: dict[str, Any]) -> None:
    text = (reports / "evaluation.md").read_text(encoding="utf-8")
    assert text.startswith("# Evaluation of starter-s\n")
    assert "| What is 5 + 6? |" in text
    assert f"| loss | {metrics['base']['loss']:.4f} | {metrics['tuned']['loss']:.4f} |" in text
    assert (reports / "evaluation.png").read_bytes().startswith(b"\x89PNG")


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
    assert figures["gguf"]["F16"]["tokens_per_second"] == 0


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


def test_rows_with_nothing_to_score_are_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("evaluate.max_length=8"), project)
    assert said == "no test row has an assistant token within evaluate.max_length 8; raise it"


def test_a_cut_gguf_is_refused(project: Path, tuned_config: Settings) -> None:
    path = project / "models/gguf/starter-s-Q8_0.gguf"
    path.write_bytes(path.read_bytes()[:1_500_000])
    said = refused(tuned_config("evaluate.max_questions=1", "evaluate.prompts=[]"), project)
    assert said.startswith("models/gguf/starter-s-Q8_0.gguf (1500000 bytes) is no whole GGUF model: ")


def test_an_adapter_of_another_base_is_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("model=starter-m", f"model.path={REPO}/starter/models/starter-m"), project)
    assert said.startswith("models/adapter was tuned from ")
