"""Base against tuned and every GGUF on a few rows, what is refused, and which measurements are taken again."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from common.errors import UserError
from pipeline.core import code
from pipeline.core.config import Config
from pipeline.core.paths import GGUF, MANIFEST
from pipeline.core.records import Manifest
from pipeline.evaluation.measure import of_tasks
from pipeline.report.record import Measurements
from pipeline.report.rows import RowResults, digests
from pipeline.stages import evaluate

REPO = Path(__file__).parents[3]
Settings = Callable[..., Config]


@pytest.fixture
def project(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exported project to break."""
    for name in ("models", "data"):
        shutil.copytree(exported / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(config: Config, out: Path) -> Measurements:
    """What the stage writes, read as the next one reads it."""
    evaluate.run(config, out)
    assert {path.name for path in (out / "reports").iterdir()} == {"measurements.json", "rows.json"}
    return Measurements.read(out / "reports/measurements.json")


@pytest.fixture(scope="module")
def found(measured: Path) -> Measurements:
    """What was measured of the shared project."""
    return Measurements.read(measured / "reports/measurements.json")


def refused(config: Config, out: Path) -> str:
    """The one line that an evaluation ends with; no report is left."""
    with pytest.raises(UserError) as raised:
        evaluate.run(config, out)
    assert "\n" not in str(raised.value)
    assert not (out / "reports").exists()
    return str(raised.value)


def test_the_gain_is_of_the_same_conversations(found: Measurements) -> None:
    base, tuned, gain = found.base_model.loss, found.tuned_model.loss, found.gain
    assert None not in (base, tuned, gain.loss, gain.low, gain.high)
    assert gain.loss == pytest.approx(base - tuned, abs=2e-5)
    assert gain.low < gain.loss < gain.high


def test_the_tuned_model_is_the_one_in_the_files(found: Measurements) -> None:
    base, tuned, files = found.base_model.loss, found.tuned_model.loss, found.gguf
    assert abs(base - tuned) > 0.01
    assert files["F16"].loss == pytest.approx(tuned, abs=0.02)
    assert files["Q8_0"].loss == pytest.approx(tuned, abs=0.05)
    assert files["base-Q8_0"].loss == pytest.approx(base, abs=0.05)


def test_what_the_manifest_says_of_a_file_stands_with_its_figures(found: Measurements, measured: Path) -> None:
    manifest = Manifest.read(measured / GGUF / MANIFEST)
    assert list(manifest.models) == list(found.gguf) == ["F16", "Q8_0", "base-Q8_0"]
    for key, file in manifest.models.items():
        figures = found.gguf[key]
        assert figures.bytes == (measured / GGUF / file.file).stat().st_size
        assert (figures.of, figures.kl, figures.top_1) == (file.of, file.kl, file.top_1)
        assert figures.tokens_per_second is None  # of 6 tokens
        assert 0 < figures.first_token_seconds < figures.answer_seconds
        assert figures.memory_bytes > figures.bytes / 2  # of so small a model much is vocabulary


def test_every_model_answers_every_prompt(found: Measurements) -> None:
    assert list(found.answers) == ["base", "tuned", "F16", "Q8_0", "base-Q8_0"]
    for answers in found.answers.values():
        assert len(answers) == len(found.prompts) == 1
        assert 0 < answers[0].tokens <= 6
        assert answers[0].tokens_per_second is None
    assert found.answers["tuned"][0].reply != found.answers["base"][0].reply


def test_lengths_are_of_the_test_answers_and_of_all_replies(found: Measurements) -> None:
    assert (found.rows, found.questions) == (6, 5)
    assert len(found.lengths["reference"]) >= 6
    assert sum(found.lengths["reference"]) == found.tokens
    for name, model in (("base", found.base_model), ("tuned", found.tuned_model)):
        assert len(found.lengths[name]) == 5 + 1
        assert model.texts is not None
        assert model.texts.mean_tokens == pytest.approx(sum(found.lengths[name]) / 6, abs=1e-4)


def test_the_gate_is_no_part_of_what_was_measured(found: Measurements) -> None:
    assert set(found.settings) == {"export", "evaluate", "train", "data"}
    assert "max_rows" in found.settings["evaluate"]
    assert "gate" not in found.settings["evaluate"]


def test_what_was_found_of_each_row_is_what_the_figures_are_made_of(found: Measurements, measured: Path) -> None:
    rows = RowResults.read(measured / "reports/rows.json")
    assert list(rows.models) == ["base", "tuned", "F16", "Q8_0", "base-Q8_0"]
    assert (len(rows.rows), len(rows.questions)) == (found.rows, found.questions)
    assert sum(rows.tokens) == found.tokens
    chats = pq.read_table(measured / "data/prepared/test.parquet")["messages"].to_pylist()
    assert rows.rows == digests([chats[number - 1] for number in rows.numbers])
    for name, figures in found.models.items():
        assert sum(rows.models[name].nats) / found.tokens == pytest.approx(figures.loss, abs=1e-5)
        headline = [
            right for right, group in zip(rows.models[name].right, rows.groups, strict=True) if group == "held_out"
        ]
        assert sum(headline) / len(headline) == pytest.approx(figures.accuracy, abs=1e-4)


@pytest.mark.parametrize(("file", "whole"), [("Q8_0", "F16"), ("base-Q8_0", "base")])
def test_flips_are_told_from_the_unquantized_model_of_each_file(
    found: Measurements, measured: Path, file: str, whole: str
) -> None:
    rows = RowResults.read(measured / "reports/rows.json")
    pairs = list(zip(rows.models[file].right, rows.models[whole].right, strict=True))
    figures = found.gguf[file]
    assert figures.flips == pytest.approx(sum(after != before for after, before in pairs) / 5)
    assert figures.flips_lost == sum(before and not after for after, before in pairs)
    assert figures.flips_won == sum(after and not before for after, before in pairs)
    assert found.gguf["F16"].flips is None


def test_without_questions_there_is_no_accuracy(project: Path, tuned_config: Settings) -> None:
    (project / "data/prepared/questions.jsonl").write_bytes(b"")
    found = run(tuned_config("evaluate.max_rows=2", "evaluate.prompts=[]"), project)
    assert found.tuned_model.accuracy is None
    assert "accuracy" not in found.tuned_model.model_fields_set
    assert found.gguf["F16"].tokens_per_second is None
    assert found.gguf["F16"].answer_seconds is None
    assert found.answers["Q8_0"] == ()


def test_the_shares_of_the_held_out_group_are_the_headline(project: Path, tuned_config: Settings) -> None:
    questions = [
        {"prompt": "?", "answer": "never said", "kind": "text", "group": group, "task": "t"}
        for group in ("unasked", "held_out")
    ]
    text = "".join(json.dumps(question) + "\n" for question in questions)
    (project / "data/prepared/questions.jsonl").write_text(text)
    tuned = run(tuned_config("evaluate.max_rows=2", "evaluate.prompts=[]"), project).tuned_model
    assert tuned.accuracy == tuned.accuracy_by_group["held_out"]
    assert list(tuned.accuracy_by_group) == ["held_out", "unasked"]


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
        "models/gguf/manifest.json does not hold what it should: files.0: starter-s-F16.gguf has no checks; "
        "make it again: `dvc repro -sf export`"
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


MODELS = ("base", "tuned", "F16", "Q8_0", "base-Q8_0")
OF_A_MODEL = ("loss", "questions", "prompts", "general-loss")
OF_A_FILE = (*OF_A_MODEL[:-1], "memory", "general-loss")
PARTS = [f"{name}-{what}" for name in MODELS for what in (OF_A_MODEL if name in MODELS[:2] else OF_A_FILE)]
FEW = ("evaluate.max_questions=1", "evaluate.max_rows=2")


def measured_parts(output: str, how: str = "measuring (.+)") -> list[str]:
    return re.findall(rf"^{how}$", output, re.MULTILINE)


def kept(output: str) -> list[str]:
    return measured_parts(output, r"(.+): measured before \(.+\)")


def caches(project: Path) -> list[str]:
    return [path.name for path in (project / ".checkpoints").glob("*/evaluation-*")]


def test_an_evaluation_that_was_killed_goes_on_with_what_it_has_measured(
    project: Path,
    tuned_settings: list[str],
    tuned_config: Settings,
    found: Measurements,
    capsys: pytest.CaptureFixture,
) -> None:
    command = [sys.executable, "-m", "pipeline.stages.evaluate", *tuned_settings, f"hydra.run.dir={project}"]
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
    assert measured_parts(said) == PARTS[:7]
    assert not (project / "reports").exists()
    again = run(tuned_config(), project)
    said = capsys.readouterr().out
    assert kept(said) == PARTS[:6]
    assert measured_parts(said) == PARTS[6:]
    assert again.base_model.loss == found.base_model.loss
    assert again.gguf["Q8_0"].loss == found.gguf["Q8_0"].loss


def test_a_second_evaluation_measures_nothing_until_its_folder_is_gone(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    first = run(tuned_config(*FEW), project)
    written = (project / "reports/measurements.json").read_bytes()
    assert measured_parts(capsys.readouterr().out) == PARTS
    assert run(tuned_config(*FEW), project) == first
    said = capsys.readouterr().out
    assert kept(said) == PARTS
    assert measured_parts(said) == []
    assert (project / "reports/measurements.json").read_bytes() == written
    (folder,) = {str(Path(path).parent) for path in re.findall(r"measured before \((.+)\)", said)}
    shutil.rmtree(folder)
    run(tuned_config(*FEW), project)
    assert measured_parts(capsys.readouterr().out) == PARTS


NOTHING_NEW = ("evaluate.batch_size=2", "evaluate.gate.min_gain=1", "evaluate.max_rows=1", "evaluate.seed=0")


@pytest.mark.parametrize(
    ("change", "taken_again"),
    [
        (NOTHING_NEW, []),
        (("evaluate.max_rows=3",), [f"{name}-loss, 1 more row" for name in MODELS]),
        (("evaluate.max_questions=3",), [f"{name}-questions, 2 more rows" for name in MODELS]),
        (("evaluate.prompts=[Hello]",), [f"{name}-prompts" for name in MODELS]),
        (("evaluate.max_new_tokens=5",), [part for part in PARTS if part.endswith(("questions", "prompts"))]),
        (("train.loss_on=last",), [f"{name}-loss, 1 more row" for name in MODELS]),  # the other has one turn
    ],
)
def test_what_another_setting_changes_is_measured_and_nothing_else(
    project: Path,
    tuned_config: Settings,
    capsys: pytest.CaptureFixture,
    change: tuple[str, ...],
    taken_again: list[str],
) -> None:
    run(tuned_config(*FEW), project)
    capsys.readouterr()
    run(tuned_config(*FEW, *change), project)
    assert measured_parts(capsys.readouterr().out) == taken_again
    run(tuned_config(*FEW), project)
    assert measured_parts(capsys.readouterr().out) == []


def test_what_is_measured_before_a_failure_is_not_measured_again(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    broken = project / "models/gguf/starter-s-base-Q8_0.gguf"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:1_500_000])
    refused(tuned_config(*FEW), project)
    broken.write_bytes(whole)
    capsys.readouterr()
    run(tuned_config(*FEW), project)
    assert measured_parts(capsys.readouterr().out) == PARTS[-len(OF_A_FILE) :]


def test_a_file_that_is_made_anew_is_measured_and_no_other(
    project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture
) -> None:
    run(tuned_config(*FEW), project)
    path = project / GGUF / MANIFEST
    manifest = json.loads(path.read_text())
    files = {file["type"]: file for file in manifest["files"] if file["of"] == "tuned"}
    shutil.copy(GGUF / files["F16"]["file"], GGUF / files["Q8_0"]["file"])
    files["Q8_0"]["sha256"] = files["F16"]["sha256"]
    path.write_text(json.dumps(manifest))
    capsys.readouterr()
    found = run(tuned_config(*FEW), project)
    assert measured_parts(capsys.readouterr().out) == [f"Q8_0-{part}" for part in OF_A_FILE]
    assert found.gguf["Q8_0"].loss == found.gguf["F16"].loss


def test_one_question_more_is_asked_alone(project: Path, tuned_config: Settings, capsys: pytest.CaptureFixture) -> None:
    all_of_them = tuned_config("evaluate.max_rows=2", "evaluate.max_questions=null", "evaluate.gate.min_questions=600")
    path = project / "data/prepared/questions.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)[:9]
    path.write_text("".join(others))
    run(all_of_them, project)
    capsys.readouterr()
    path.write_text("".join([*reversed(others), first]))
    run(all_of_them, project)
    assert measured_parts(capsys.readouterr().out) == [f"{name}-questions, 1 more row" for name in MODELS]


def retuned(project: Path) -> None:
    adapter = project / "models/adapter/adapter_config.json"
    adapter.write_text(adapter.read_text().replace('"lora_alpha": 8', '"lora_alpha": 4'))


def test_measurements_of_another_model_are_not_taken(project: Path, tuned_config: Settings) -> None:
    config = tuned_config()
    before = evaluate.dependencies(config)
    assert evaluate.dependencies(config) == before
    retuned(project)
    assert evaluate.dependencies(config) != before


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("llama/batch.py", True),
        ("pipeline/data/grading.py", True),
        ("pipeline/evaluation/loss.py", True),
        ("pipeline/models/loading.py", True),
        ("pipeline/stages/evaluate.py", True),
        ("pipeline/report/page.css", False),
        ("pipeline/stages/report.py", False),
        ("pipeline/tracking/progress_bar.py", False),
    ],
)
def test_measurements_by_other_code_are_not_taken(
    project: Path, tuned_config: Settings, monkeypatch: pytest.MonkeyPatch, file: str, changes: bool
) -> None:
    for place in ("llama", "pipeline"):
        shutil.copytree(REPO / place, project / "code" / place, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", project / "code")
    config = tuned_config()
    before = evaluate.dependencies(config)
    with (project / "code" / file).open("a") as text:
        text.write("\n")
    assert (evaluate.dependencies(config) != before) is changes


def test_figures_of_another_version_of_a_library_are_not_taken(
    project: Path, tuned_config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tuned_config()
    before = evaluate.dependencies(config)
    for upgraded in ("llama-cpp-python", "torch", "transformers", "tokenizers"):
        with monkeypatch.context() as patch:
            patch.setattr(evaluate, "version", lambda name: "9.9" if name == upgraded else version(name))  # noqa: B023
            assert evaluate.dependencies(config) != before, upgraded
    assert evaluate.dependencies(config) == before


def test_figures_of_another_gpu_are_not_taken(
    project: Path, tuned_config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tuned_config("runtime.device=auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices = []
    for name in ("small", "large"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)  # noqa: B023
        devices.append(evaluate.dependencies(config)["device"])
    assert devices == ["small", "large"]
    assert evaluate.dependencies(tuned_config())["device"] == "cpu"


def test_scores_of_a_task_whose_include_has_changed_are_not_taken(project: Path, tuned_config: Settings) -> None:
    (project / "mine.yaml").write_text("include: base.yaml")
    (project / "base.yaml").write_text("doc_to_text: '{{begin}}'\nprocess_docs: !function utils.keep")
    (project / "utils.py").write_text("keep = list\n")
    settings = tuned_config("evaluate.tasks=[mine.yaml]").evaluate
    states = [of_tasks(settings)]
    for changed in ("mine.yaml", "base.yaml", "utils.py"):
        with (project / changed).open("a") as text:
            text.write("\n")
        states.append(of_tasks(settings))
    assert len(set(map(str, states))) == 4
    (project / "base.yaml").unlink()
    with pytest.raises(UserError, match=r"^mine\.yaml names include: base\.yaml, which is no file here$"):
        of_tasks(settings)


def test_scores_of_another_version_of_the_harness_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "version", lambda name: f"that of {name}")
    assert evaluate.libraries(["arc_easy"])["lm_eval"] == "that of lm_eval"
    assert "lm_eval" not in evaluate.libraries([])  # it need not be installed then


def test_what_is_forgotten_is_measured_of_every_model_and_paired_with_the_base(
    found: Measurements, measured: Path
) -> None:
    rows = RowResults.read(measured / "reports/rows.json")
    assert len(rows.general["statements"]) == 4
    tokens, base = sum(rows.general["statements"]), sum(rows.models["base"].general["statements"])
    for name, figures in found.models.items():
        nats = sum(rows.models[name].general["statements"])
        general = figures.general["statements"]
        assert general.texts == 4
        assert general.loss == pytest.approx(nats / tokens, abs=1e-5)
        assert name == "base" or general.forgetting == pytest.approx((nats - base) / tokens, abs=1e-5)
    assert found.base_model.general["statements"].forgetting is None
    assert found.tuned_model.general["statements"].forgetting > 0.01
    assert found.gguf["F16"].general["statements"].loss == pytest.approx(
        found.tuned_model.general["statements"].loss, abs=0.02
    )


def test_other_general_texts_than_were_prepared_are_refused(project: Path, tuned_config: Settings) -> None:
    said = refused(tuned_config("+evaluate.general.statements.cap=2"), project)
    assert said.startswith(
        "data/forgetting is not what the configuration asks for: evaluate.general.statements differs"
    )
