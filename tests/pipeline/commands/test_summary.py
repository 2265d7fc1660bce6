"""What `tunesmith summary` shows of an evaluation, and where there is none to show."""

import json
import subprocess
from pathlib import Path

import pytest
from evaluation_sample import ask, sample

from common.errors import UserError
from pipeline.commands import summary


@pytest.fixture(autouse=True)
def evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """reports/evaluation.json in a working folder of its own."""
    path = tmp_path / "reports/evaluation.json"
    path.parent.mkdir()
    path.write_text(json.dumps(sample()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return path


def refused() -> str:
    """The one line that it ends with."""
    with pytest.raises(UserError) as ended:
        summary.run()
    return str(ended.value)


def test_figures_and_verdict_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    summary.run()
    lines = [" ".join(line.replace("\u2502", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert "loss 1.7901 0.0836" in lines
    assert "accuracy, held out 0.2% 95.2%" in lines
    assert "Q8_0 6.5 1.0873 0.0378 330.4" in lines
    assert "verdict: pass, 11 checks" in lines


def test_what_git_does_not_know_yet_is_to_be_committed(evaluation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def last_line() -> str:
        summary.run()
        return capsys.readouterr().out.splitlines()[-1]

    assert "git add" not in last_line()  # in no repository
    folder = evaluation.parents[1]
    git = ["git", "-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    (folder / "reports/.gitignore").write_text("/evaluation.json\n")
    (folder / "reports/loss.csv").write_text("step\n")
    (folder / "params.yaml").write_text("train: {}\n")
    (folder / "mine.txt").write_text("no result\n")
    assert last_line() == "keep this result: `git add params.yaml reports && git commit`"
    subprocess.run([*git, "add", "params.yaml", "reports"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "result"], check=True)
    assert "git add" not in last_line()
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    assert last_line() == "keep this result: `git add dvc.lock && git commit`"


def test_without_questions_there_is_no_accuracy(evaluation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = sample()
    ask(tree, prompts=4)
    tree["gguf"]["Q8_0"]["tokens_per_second"] = None
    evaluation.write_text(json.dumps(tree))
    summary.run()
    shown = capsys.readouterr().out
    assert "accuracy" not in shown
    assert "-" in next(line for line in shown.splitlines() if " Q8_0 " in line)


def test_what_cannot_be_read_ends_in_one_line(evaluation: Path) -> None:
    evaluation.write_text(json.dumps({"model": "tiny"}))
    assert refused() == (
        "reports/evaluation.json was made by another version of Tunesmith (schema unnumbered, this one reads 2); "
        "make it again: `dvc repro -sf report`"
    )
    evaluation.unlink()
    assert refused() == "reports/evaluation.json is missing; run `dvc repro report` first"
