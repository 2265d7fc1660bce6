"""The stage with a judge: it fails midway and is gone on with, says what it found, and no key is anywhere."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from judge_server import comparison, judge_server, kept, prefers

from common.errors import UserError
from pipeline.core.config import Config
from pipeline.judging import endpoint
from pipeline.report.record import Measurements
from pipeline.stages import evaluate

KEY = "sk-very-secret"
CHECKED = (
    '{"prompt": "Say yes.", "checks": [{"kind": "words", "exactly": 1}], "kind": "checks", '
    '"group": "instructions", "task": "words"}\n'
)


def test_a_judge_that_fails_midway_is_gone_on_with(
    exported: Path,
    tuned_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("models", "data"):
        shutil.copytree(exported / name, tmp_path / name)
    (tmp_path / "data/prepared/questions.jsonl").write_text(CHECKED)
    kept(tmp_path / "feedback", [comparison("left", "good", "bad"), comparison("right", "good, too", "good")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.setattr(endpoint, "WAITS", ())
    caplog.set_level(logging.DEBUG)
    with judge_server(lambda asked, before: prefers("good")(asked, before) if before < 3 else (500, KEY)) as judge:
        config = tuned_config(
            f"evaluate.judge={{url: {judge.url}, model: judge, key: JUDGE_KEY, votes: feedback, at_once: 1}}",
            "evaluate.prompts=[Who are you?, What is red?]",
        )
        with pytest.raises(UserError, match="run the same command again") as raised:
            evaluate.run(config, tmp_path)
        assert not (tmp_path / "reports").exists()
        asked = len(judge.asked)
        judge.says = prefers("good")
        caplog.clear()
        evaluate.run(config, tmp_path)
        assert len(judge.asked) == 4 + len(set(map(str, judge.asked[asked - 1 :])))  # each once but for the failed one
    assert "measuring base" not in caplog.text
    written = (tmp_path / "reports/measurements.json").read_text()
    found = Measurements.read(tmp_path / "reports/measurements.json").judgement
    assert found is not None
    assert len(found.outcomes) == 3  # two prompts, and the question that has no known answer
    assert found.agreement is not None
    assert (found.agreement.votes, found.agreement.agreed, found.agreement.unclear) == (2, 0.5, 0)
    kept_there = "".join(path.read_text() for path in (tmp_path / ".checkpoints").rglob("*.json*"))
    assert KEY not in written + kept_there + caplog.text + str(raised.value)
