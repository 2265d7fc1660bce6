"""A task of one's own through lm-evaluation-harness, as far as that is installed."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from pipeline.core.config import Config
from pipeline.evaluation.harness import TaskScores, check_installed, model_task_scores

STARTER = Path(__file__).parents[3] / "starter/models/starter-s"
INSTALLED = find_spec("lm_eval") is not None
Settings = Callable[..., Config]


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A choice between two continuations of which one is the text that was pretrained on, and one is noise."""
    rows = [
        {"begin": "The capital of France is", "options": [" Paris.", " zq xv jj kkq."], "right": 0},
        {"begin": "Two plus two", "options": [" vvx jq zz.", " is four."], "right": 1},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "task": "sense",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{begin}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{right}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    path = tmp_path / "sense.yaml"
    path.write_text(json.dumps(settings))  # which is YAML too
    return path


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).eval()


def scores(model: Any, config: Config) -> TaskScores:
    return model_task_scores(model, AutoTokenizer.from_pretrained(STARTER), config.evaluate)


@pytest.mark.skipif(INSTALLED, reason="lm-evaluation-harness is installed")
def test_without_the_harness_there_is_one_line_that_says_so() -> None:
    with pytest.raises(UserError, match=r"lm-evaluation-harness is not installed; run `pip install -e \.\[harness\]`"):
        check_installed(["arc_easy"])
    check_installed([])


@pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed")
def test_a_task_of_ones_own_is_scored(
    task: Path, model: Any, tuned_config: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    check_installed([str(task)])
    assert scores(model, tuned_config(f"evaluate.tasks=[{task}]")) == {"sense": 1.0}
    assert scores(model, tuned_config(f"evaluate.tasks=[{task}]", "evaluate.tasks_limit=1")) == {"sense": 1.0}


@pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed")
def test_an_unknown_task_is_named_in_one_line(model: Any, tuned_config: Settings) -> None:
    with pytest.raises(UserError, match=r"^evaluate\.tasks no_such_task cannot be loaded: ") as raised:
        scores(model, tuned_config("evaluate.tasks=[no_such_task]"))
    assert "\n" not in str(raised.value)
