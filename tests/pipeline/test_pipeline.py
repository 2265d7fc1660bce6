"""The whole pipeline under real DVC, on starter-s with a few steps, in a repository of its own.

The tests share one workspace and leave it as they found it: every edit is taken back, which DVC's run-cache makes
cheap.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

pytestmark = pytest.mark.slow
REPO = Path(__file__).parents[2]
SETTINGS = [
    "model=starter-s",
    "train.max_steps=6",
    "train.save_steps=3",
    "train.eval_steps=6",
    "evaluate.max_questions=12",
    "evaluate.max_rows=24",
    "evaluate.gate.min_rows=12",
    "evaluate.gate.min_questions=6",
    "evaluate.max_new_tokens=8",
    "evaluate.prompts=[What is 5 + 6?]",
]
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))},
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    **{f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def run(folder: Path, *command: str, status: int = 0, **environment: str) -> str:
    """What a command prints; a status other than the expected one fails the test with it."""
    ran = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert ran.returncode == status, f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stdout[-4000:]}"
    return ran.stdout


def stages_run(output: str) -> list[str]:
    """The stages that a `dvc repro` ran or took from its run-cache."""
    return re.findall(r"(?:Running stage|Stage) '(\w+)'(?: is cached|:)", output)


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """A file with one text replaced, and as it was afterwards."""
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of this project's files after its first `dvc repro`, everything committed."""
    folder = tmp_path_factory.mktemp("workspace")
    listed = run(REPO, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(REPO / name) and not name.startswith(("docs/", "wheels/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, folder / name, follow_symlinks=False)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "python", "-m", "pipeline", "adopt", *SETTINGS)
    run(folder, "dvc", "repro")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "results")


def test_every_stage_writes_what_the_readme_promises(workspace: Path) -> None:
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    for name in ("base", "tuned"):
        assert metrics[name]["loss"] > 0
        assert 0 <= metrics[name]["accuracy"] <= 1
        assert metrics[name]["perplexity"] == pytest.approx(2.718281828 ** metrics[name]["loss"], rel=1e-3)
    assert list(metrics["gguf"]) == ["F16", "Q8_0", "Q4_K_M", "base-Q8_0"]
    for kind, figures in metrics["gguf"].items():
        file = workspace / f"models/gguf/starter-s-{kind}.gguf"
        assert file.stat().st_size == figures["bytes"]
        assert figures["answer_seconds"] > 0
    assert metrics["gguf"]["F16"]["loss"] == pytest.approx(metrics["tuned"]["loss"], rel=2e-3)
    assert metrics["gguf"]["base-Q8_0"]["loss"] == pytest.approx(metrics["base"]["loss"], rel=2e-3)
    evaluation = json.loads((workspace / "reports/evaluation.json").read_text())
    assert metrics["passed"] == int(evaluation["verdict"]["passed"])
    for name in ("reports/evaluation.md", "reports/evaluation.html"):
        assert "What is 5 + 6?" in (workspace / name).read_text()
    assert "starter-s" in (workspace / "models/README.md").read_text()
    assert (workspace / "reports/evaluation.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((workspace / "reports/train.json").read_text())["steps"] == 6
    assert (workspace / "models/adapter/adapter_model.safetensors").is_file()


def test_a_second_repro_does_nothing(workspace: Path) -> None:
    output = run(workspace, "dvc", "repro")
    assert stages_run(output) == []
    assert "up to date" in output


def test_a_comment_in_conf_reruns_compose_alone(workspace: Path) -> None:
    with edited(workspace / "conf/train/lora.yaml", "# LoRA:", "# A word more. LoRA:"):
        assert stages_run(run(workspace, "dvc", "repro")) == ["compose"]
    run(workspace, "dvc", "repro")


def deps(dep: str, *stages: str) -> dict[str, list[dict[str, dict[str, str]]]]:
    """What `dvc status` says where one of their deps has changed."""
    return {stage: [{"changed deps": {dep: "modified"}}] for stage in stages}


DUE = [  # a file, what is changed in it, and what is due
    ("llama/batch.py", '"""', '"""Once more: ', deps("llama", "export", "evaluate")),
    ("llama/model.py", '"""', '"""Once more: ', deps("llama", "export", "evaluate")),
    (
        "pipeline/models/loading.py",
        "PeftModel.from_pretrained(base, str(adapter))",
        "PeftModel.from_pretrained(base, str(adapter), is_trainable=False)",
        deps("pipeline/models", "learn", "prepare", "data_report", "train", "export", "evaluate"),
    ),
    (
        "pipeline/report/record.py",
        "SCHEMA = 2",
        "SCHEMA = 3",
        deps("pipeline/report/record.py", "evaluate") | deps("pipeline/report", "data_report", "report"),
    ),
    ("pipeline/report/page.css", "#0f766e", "#0f766f", deps("pipeline/report", "data_report", "report")),
    ("pipeline/publishing/licences.py", "Apache License 2.0", "Apache", deps("pipeline/publishing", "report")),
    ("pipeline/core/config.py", '"""', '"""Once more: ', deps("pipeline/core", "compose")),
    ("pipeline/tracking/progress_bar.py", '"""', '"""Once more: ', {}),
    ("pipeline/stages/run.py", '"""', '"""Once more: ', {}),
]


@pytest.mark.parametrize(("file", "old", "new", "due"), DUE, ids=[row[0] for row in DUE])
def test_a_change_in_the_code_makes_those_stages_due_that_are_made_of_it(
    workspace: Path, file: str, old: str, new: str, due: dict[str, Any]
) -> None:
    with edited(workspace / file, old, new):
        assert json.loads(run(workspace, "dvc", "status", "--json")) == due


def test_another_colour_shows_again_and_measures_nothing(workspace: Path) -> None:
    page = workspace / "reports/evaluation.html"
    before = page.read_bytes()
    with edited(workspace / "pipeline/report/page.css", "--tuned: #0f766e", "--tuned: #0f766f"):
        assert sorted(stages_run(run(workspace, "dvc", "repro"))) == ["data_report", "report"]
        assert page.read_bytes() != before
    run(workspace, "dvc", "repro")
    assert page.read_bytes() == before


def test_another_threshold_judges_again_and_loads_no_model_where_the_rows_suffice(adopting: Path) -> None:
    measured = (adopting / "reports/measurements.json").read_bytes()
    run(adopting, "python", "-m", "pipeline", "adopt", "evaluate.gate.max_task_drop=0.97")
    run(adopting, "dvc", "repro", "compose")
    due = json.loads(run(adopting, "dvc", "status", "--json"))
    assert due["evaluate"] == [{"changed deps": {"params.yaml": {"evaluate": "modified"}}}]
    assert set(due) == {"evaluate", "report"}
    said = run(adopting, "dvc", "repro")
    assert stages_run(said) == ["evaluate", "report"]
    assert "measured before" in said
    assert "measuring " not in said
    assert "verdict: " in said
    evaluation = json.loads((adopting / "reports/evaluation.json").read_text())
    assert evaluation["settings"]["evaluate"]["gate"]["max_task_drop"] == 0.97
    limits = {check["limit"] for check in evaluation["verdict"]["checks"] if check["name"].startswith("task ")}
    assert limits == {0.97}
    assert (adopting / "reports/measurements.json").read_bytes() == measured


def test_an_evaluation_by_force_takes_what_was_measured_before(workspace: Path) -> None:
    measured = (workspace / "reports/measurements.json").read_bytes()
    said = run(workspace, "dvc", "repro", "-sf", "evaluate")
    assert "measuring " not in said
    (folder,) = {Path(path).parent for path in re.findall(r"measured before \((.+)\)", said)}
    assert folder.is_relative_to(workspace / ".checkpoints")
    assert (workspace / "reports/measurements.json").read_bytes() == measured


def test_an_edit_reruns_exactly_the_stages_that_it_concerns(workspace: Path) -> None:
    with edited(workspace / "conf/recipe/starter-m.yaml", "batch_size: 128", "batch_size: 64"):
        assert stages_run(run(workspace, "dvc", "repro")) == ["compose", "evaluate", "report"]
    with edited(workspace / "conf/export/gguf.yaml", "Q4_K_M]", "Q5_K_M]"):
        assert stages_run(run(workspace, "dvc", "repro")) == ["compose", "export", "evaluate", "report"]
    with edited(workspace / "conf/tracking/mlflow.yaml", "experiment: tunesmith", "experiment: another"):
        again = {"export", "evaluate", "report"}  # out of the run-cache, as the edits above are taken back
        assert set(stages_run(run(workspace, "dvc", "repro"))) == {"compose"} | again
    run(workspace, "dvc", "repro")
    assert run(workspace, "dvc", "status").strip().endswith("up to date.")


def test_a_hand_edited_params_file_is_put_right(workspace: Path) -> None:
    params = workspace / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("max_steps: 6", "max_steps: 7"))
    assert "train.max_steps: 7 -> 6" in run(workspace, "dvc", "repro")
    assert params.read_text() == before


def test_an_experiment_composes_its_own_settings(workspace: Path) -> None:
    run(workspace, "dvc", "exp", "run", "-S", "export.quantizations=[Q8_0]", "-n", "small")
    try:
        assert list(json.loads((workspace / "reports/metrics.json").read_text())["gguf"]) == ["Q8_0", "base-Q8_0"]
    finally:
        run(workspace, "git", "checkout", "-q", "--", ".")
        run(workspace, "dvc", "checkout", "-f")
    assert "small" in run(workspace, "dvc", "exp", "show", "--csv", "--hide-workspace")


@pytest.fixture
def adopting(workspace: Path) -> Iterator[Path]:
    """The workspace, for tests that adopt and compose; given back as it was committed."""
    yield workspace
    run(workspace, "git", "checkout", "-q", "--", ".")
    run(workspace, "git", "clean", "-qfd", "inputs")
    run(workspace, "dvc", "checkout", "-f", "-q")


def test_what_the_configuration_names_outside_is_watched_by_the_stages_that_use_it(
    adopting: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(adopting / "starter/models/starter-s", tmp_path / "model")
    (tmp_path / "chats").mkdir()
    for name, source in (("chats/a.jsonl", "chats.jsonl"), ("questions.jsonl", "questions.jsonl")):
        shutil.copy(adopting / "starter" / source, tmp_path / name)
    shutil.copy(model / "chat_template.jinja", tmp_path / "mine.jinja")
    run(
        adopting, "python", "-m", "pipeline", "adopt", f"model.path={model}",
        f"model.chat_template={tmp_path}/mine.jinja",
        f"data.files=[{tmp_path}/chats/*.jsonl]", f"data.questions={tmp_path}/questions.jsonl",
    )  # fmt: skip
    run(adopting, "python", "-m", "pipeline", "compose")
    run(adopting, "dvc", "commit", "-fq")  # as if all stages had run with these
    assert run(adopting, "dvc", "status").strip().endswith("up to date.")
    for name, stages in (
        ("mine.jinja", dict.fromkeys(("data_report", "train", "export"), "chat_template")),
        ("model/config.json", dict.fromkeys(("data_report", "train", "export", "evaluate"), "model")),
        ("questions.jsonl", {"prepare": "questions"}),
        ("chats/another.jsonl", {"prepare": "data_folder_1"}),
    ):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        status = json.loads(run(adopting, "dvc", "status", "--json"))
        assert status == {stage: [{"changed deps": {f"inputs/{link}": "modified"}}] for stage, link in stages.items()}
        run(adopting, "dvc", "commit", "-fq")


def test_an_experiment_overrides_what_is_adopted_and_says_so(adopting: Path) -> None:
    ran = run(adopting, "dvc", "exp", "run", "-S", "experiment=r5", "-S", "train.lr=1e-3", "-n", "met", "compose")
    assert "\nexperiment=r5 overrides adopted model=starter-s, train.max_steps=6, " in ran
    params = yaml.safe_load((adopting / "params.yaml").read_text())
    assert (params["experiment"], params["model"]["name"], params["data"]["name"]) == ("r5", "llama-3.2-1b", "finetome")
    assert (params["train"]["max_steps"], params["train"]["lr"]) == (60, 1e-3)
    assert params["train"]["lora"]["r"] == 16  # no recipe of the adopted model's
    assert params["evaluate"]["max_questions"] == 12  # adopted, and none of the experiment's


def test_an_experiment_commits_links_and_nothing_behind_them(adopting: Path, tmp_path: Path) -> None:
    model = shutil.copytree(adopting / "starter/models/starter-s", tmp_path / "model")
    run(adopting, "dvc", "exp", "run", "-S", f"model.path={model}", "-n", "outside", "compose")
    (commit,) = run(adopting, "git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/outside").split()
    run(adopting, "git", "checkout", "-q", "-f", "HEAD", ".")
    tree = run(adopting, "git", "ls-tree", "-r", commit, "inputs")
    assert re.search(r"^120000 blob \w+\tinputs/model$", tree, re.MULTILINE)
    assert "inputs/model/" not in tree


def test_a_direct_run_is_seen_by_dvc_which_puts_back_what_it_recorded(adopting: Path) -> None:
    recorded = (adopting / "reports/prepare.json").read_bytes()
    run(adopting, "python", "-m", "pipeline", "prepare", "data.max_rows=60")
    refused = run(adopting, "python", "-m", "pipeline", "train", status=1)
    assert "asks for: data.max_rows is None and was 60; run `dvc repro prepare`, or" in refused
    assert "modified:           data/prepared" in run(adopting, "dvc", "status", "prepare")
    assert stages_run(run(adopting, "dvc", "repro", "prepare")) == ["prepare"]
    assert (adopting / "reports/prepare.json").read_bytes() == recorded
    assert not (adopting / "outputs").exists()
    assert not (adopting / ".hydra").exists()


def test_an_unknown_key_ends_in_one_line_that_names_it(workspace: Path) -> None:
    with edited(workspace / "conf/train/lora.yaml", "lr: 2e-4", "learning_rate: 2e-4"):
        output = run(workspace, "dvc", "repro", status=255)
    assert "compose: train.learning_rate is not a key of the configuration" in output
    assert "Traceback" not in output


def test_a_failed_stage_names_the_command_that_brings_the_last_result_back(workspace: Path) -> None:
    measured = (workspace / "reports/measurements.json").read_bytes()
    with edited(workspace / "conf/recipe/starter-m.yaml", "max_length: 512", "max_length: 8"):
        output = run(workspace, "dvc", "repro", status=255)
    said = next(line for line in output.splitlines() if line.startswith("evaluate:"))
    assert "evaluate.max_length 8; raise it" in said
    command = re.search(r"come back with: (.*)\)", said)
    assert command is not None
    assert not (workspace / "reports/measurements.json").exists()
    run(workspace, "bash", "-c", command[1])
    assert (workspace / "reports/measurements.json").read_bytes() == measured
    run(workspace, "dvc", "repro")


def test_one_mlflow_run_holds_the_whole_pipeline(workspace: Path) -> None:
    client = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    lineage = json.loads((workspace / "models/adapter/lineage.json").read_text())
    found = client.get_run(lineage["mlflow_run"])
    assert found.info.status == "FINISHED"
    assert found.data.params["model.name"] == "starter-s"
    assert found.data.params["train.max_steps"] == "6"
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    assert found.data.metrics["tuned.loss"] == pytest.approx(metrics["tuned"]["loss"])
    assert found.data.metrics["gguf.Q8_0.loss"] == pytest.approx(metrics["gguf"]["Q8_0"]["loss"])
    assert found.data.tags["fingerprint"] == lineage["fingerprint"]
    assert found.data.tags["data_digest"]
    prepared = json.loads((workspace / "reports/prepare.json").read_text())
    inputs = {one.tags[0].value: one.dataset for one in found.inputs.dataset_inputs}
    assert {name: data.digest for name, data in inputs.items()} == {
        name: split["sha256"][:36] for name, split in prepared["splits"].items()
    }
    assert {name: data.name for name, data in inputs.items()} == {
        name: f"starter/{name}" for name in prepared["splits"]
    }
    assert json.loads(inputs["test"].profile) == {"num_rows": prepared["splits"]["test"]["rows"]}
    names = {item.path for item in client.list_artifacts(lineage["mlflow_run"])}
    reports = {f"evaluation.{kind}" for kind in ("json", "md", "html", "png")} | {"card.json", "README.md"}
    data = {"data.html", "data.json", "dataset_card.md"}
    assert names >= {"metrics.json", "train.json", "prepare.json", "manifest.json", *data, *reports}


def test_dvc_compares_experiments_by_a_few_numbers(workspace: Path) -> None:
    shown = json.loads(run(workspace, "dvc", "metrics", "show", "--json"))[""]["data"]
    headlines = json.loads((workspace / "reports/headlines.json").read_text())
    assert {name: file["data"] for name, file in shown.items()} == {"reports/headlines.json": headlines}
    assert 10 <= len(headlines) <= 15
    assert headlines["validation_loss"] == json.loads((workspace / "reports/train.json").read_text())["validation_loss"]


def test_what_came_out_is_compared_and_promoted(workspace: Path) -> None:
    metrics = json.loads((workspace / "reports/metrics.json").read_text())
    assert "Recommended: starter-s" in run(workspace, "python", "-m", "pipeline", "compare", "workspace", "HEAD")
    comparison = json.loads((workspace / "reports/compare.json").read_text())
    assert [one["name"] for one in comparison["runs"]] == ["starter-s workspace", "starter-s HEAD"]
    losses = [(kind, metrics["gguf"][kind]["loss"]) for kind in ("F16", "Q8_0", "Q4_K_M")]
    assert [(file["type"], file["figures"]["loss"]) for file in comparison["files"]] == losses * 2
    run(workspace, "python", "-m", "pipeline", "promote", "--force", "--quantization", "Q8_0")
    version = MlflowClient(f"sqlite:///{workspace}/mlflow.db").get_model_version_by_alias("tunesmith", "champion")
    manifest = json.loads((workspace / "models/gguf/manifest.json").read_text())
    (file,) = [one for one in manifest["files"] if one["file"] == "starter-s-Q8_0.gguf"]
    assert version.tags["sha256"] == file["sha256"]
    assert version.run_id == json.loads((workspace / "reports/evaluation.json").read_text())["mlflow_run"]


def test_a_clone_with_the_remote_reruns_nothing(workspace: Path, tmp_path: Path) -> None:
    run(workspace, "dvc", "remote", "add", "-f", "-d", "store", str(tmp_path / "store"))
    try:
        run(workspace, "dvc", "push", "-q")
        clone = tmp_path / "clone"
        run(tmp_path, "git", "clone", "-q", str(workspace), str(clone))
        shutil.copy(workspace / ".dvc/config", clone / ".dvc/config")
        run(clone, "dvc", "pull", "-q")
        assert stages_run(run(clone, "dvc", "repro")) == ["learn"]  # which has nothing to learn, and no cache
        wanted = (workspace / "models/gguf/starter-s-Q8_0.gguf").read_bytes()
        assert (clone / "models/gguf/starter-s-Q8_0.gguf").read_bytes() == wanted
    finally:
        run(workspace, "dvc", "remote", "remove", "store")
